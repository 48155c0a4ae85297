"""The peer of bench_train_step.py: Ultralytics' own training, stopped and timed by its callbacks.

Defaults except: no validation, plots or files; no warm-up, in which it would update the weights
more often than in the rest of the run; loading in the training process as ours does here.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import IO

from interleave import Times, reserve_stdout


class Turnstile:
    """Run as many steps as stdin requests, and print their times."""

    def __init__(self, replies: IO[str]) -> None:
        self.replies = replies
        self.allowed = 1  # to warm up
        self.times: list[Times] = []
        self.is_warm = False
        self.step_s = 0.0
        self.busy_s = 0.0
        self.start = self.end = time.perf_counter()

    def before_step(self, _trainer: object) -> None:
        """Record how long the batch took; wait if all requested steps are done."""
        load_s = time.perf_counter() - self.end
        if self.step_s:
            together = load_s + self.step_s
            row = {"load": load_s, "step": self.step_s, "together": together}
            row["processor"] = self.busy_s
            self.times.append({name: 1000 * seconds for name, seconds in row.items()})
        if self.allowed == 0:
            self._wait()
        self.allowed -= 1
        self.start, self.busy_s = time.perf_counter(), -time.process_time()

    def after_step(self, _trainer: object) -> None:
        """Record how long the step took."""
        self.end = time.perf_counter()
        self.step_s = self.end - self.start
        self.busy_s += time.process_time()

    def _wait(self) -> None:
        self.replies.write((json.dumps(self.times) if self.is_warm else "ready") + "\n")
        self.is_warm, self.times = True, []
        order = sys.stdin.readline()
        if not order:
            os._exit(0)
        self.allowed = int(order)


def main(network: str, data: str, epochs: str, imgsz: str, batch: str) -> None:
    """Train until stdin ends."""
    turnstile = Turnstile(reserve_stdout())
    from ultralytics import RTDETR, settings

    settings.update({"sync": False})
    model = RTDETR(network)
    model.add_callback("on_train_batch_start", turnstile.before_step)
    model.add_callback("on_train_batch_end", turnstile.after_step)
    model.train(
        data=data,
        epochs=int(epochs),
        imgsz=int(imgsz),
        batch=int(batch),
        device="cpu",
        workers=0,
        warmup_epochs=0,
        val=False,
        plots=False,
        save=False,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
