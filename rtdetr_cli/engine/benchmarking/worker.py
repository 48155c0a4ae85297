"""One contestant of `rtdetr benchmark`: a fresh process that opens one file and runs when told.

`python -m rtdetr_cli.engine.benchmarking.worker` reads one line of JSON (model, device, half,
timeout, size_hw), returns `{"ready": ...}`, then for each line `{"batch": B, "calls": N}` N times
and the peak of its memory. timing.py is at the other end.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import IO, Any

import torch

from rtdetr_cli.backends.load import Detector, load_detector
from rtdetr_cli.core.errors import RTDETRError
from rtdetr_cli.core.memory import peak_memory


def time_calls(detector: Detector, images: torch.Tensor, calls: int) -> list[float]:
    """Milliseconds of each call: images in, detections on the CPU out."""
    sizes_hw = [(480, 640)] * len(images)
    times_ms = []
    for _ in range(calls):
        start = time.perf_counter()
        detector.detect(images, sizes_hw)
        times_ms.append(1000 * (time.perf_counter() - start))
    return times_ms


def serve(orders: IO[str], answers: IO[str]) -> None:
    """Open what the first line names and work until the orders end."""
    first = json.loads(orders.readline())
    try:
        detector = load_detector(
            first["model"], first["device"], half=first["half"], timeout=first["timeout"]
        )
    except RTDETRError as error:
        _answer(answers, {"error": str(error)})
        return
    _answer(answers, {"ready": detector.description})
    generator = torch.Generator().manual_seed(0)
    for line in orders:
        order = json.loads(line)
        images = torch.rand(order["batch"], 3, *first["size_hw"], generator=generator)
        try:
            times_ms = time_calls(detector, images, order["calls"])
        except RTDETRError as error:
            _answer(answers, {"error": str(error)})
            continue
        _answer(answers, {"times_ms": times_ms, "peak_bytes": peak_memory()})


def _answer(answers: IO[str], values: dict[str, Any]) -> None:
    answers.write(json.dumps(values) + "\n")
    answers.flush()


def main() -> None:
    """Keep stdout for answers; whatever a library prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
