"""Kill a small real training at random moments and compare its result with an uninterrupted one.

    python tests/benchmarks/kill_resume.py --data bccd/data.yaml [--kills 30]

Runs of `rtdetr-n`, with and without loading processes, get SIGKILL between 0 and 6 seconds after
their first new state (seeded), resume with `resume=true`, and are killed again; saving is so
frequent that some kills interrupt it. Each run must end bit for bit as the uninterrupted one.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from rtdetr_cli.weights.checkpoint import load_checkpoint

KEYS = ("model=rtdetr-n.yaml", "imgsz=96", "batch=4", "epochs=4", "fraction=0.2", "save_steps=3",
        "val_every=2", "device=cpu", "plots=false", "seed=0")  # fmt: skip
TIMES = ("time", "data_wait")


def main() -> None:
    """Print a line for each run; exit with 1 if one differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--kills", type=int, default=30)
    options = parser.parse_args()
    draw, kills, number, wrong = random.Random(0), 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        assert _start(options.data, whole, workers=0).wait() == 0
        while kills < options.kills:
            project, workers = Path(folder) / f"run{number}", (0, 2)[number % 2]
            count, torn = _killed_run(options, project, workers, draw, options.kills - kills)
            equal = _outcome(project) == _outcome(whole)
            verdict = "equal" if equal else "DIFFERENT"
            sys.stdout.write(
                f"run {number}: workers={workers}, {count} kills, {torn} of them while saving: "
                f"{verdict}\n"
            )
            sys.stdout.flush()
            kills, number, wrong = kills + count, number + 1, wrong + (not equal)
    sys.stdout.write(f"{kills} kills in {number} runs, {wrong} different\n")
    sys.exit(bool(wrong))


def _killed_run(
    options: argparse.Namespace, project: Path, workers: int, draw: random.Random, most: int
) -> tuple[int, int]:
    """Kill a run until it ends; return the number of kills, and of those during a write."""
    kills = torn = 0
    while True:
        process = _start(options.data, project, workers)
        if kills < most:
            _wait_for_news(project, process)
            time.sleep(draw.uniform(0, 6))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                torn += any((project / "train" / "weights").glob(".*"))
        if process.wait() == 0:
            return kills, torn
        if process.returncode != -signal.SIGKILL:
            raise SystemExit(f"the run ended with {process.returncode}")


def _start(data: str, project: Path, workers: int) -> subprocess.Popen[bytes]:
    last = project / "train" / "weights"
    words = [f"data={data}", *KEYS, f"workers={workers}"]
    if any(last.glob("last*.pt")):
        words = ["resume=true", f"workers={workers}"]
    line = [sys.executable, "-m", "rtdetr_cli", "train", *words, f"project={project}", "exist_ok"]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(line, start_new_session=True, stdout=quiet, stderr=quiet)


def _wait_for_news(project: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until the run has saved for the first time, or has ended."""
    last, start = project / "train" / "weights" / "last.pt", time.time()
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):  # between two renames there is none
            if last.stat().st_mtime > start:
                return
        time.sleep(0.05)


def _outcome(project: Path) -> list[object]:
    """Weights, training state and results.csv of a run, without times, as comparable values."""
    folder = project / "train"
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    found: list[object] = [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
    for name in ("last.pt", "best.pt"):
        checkpoint = load_checkpoint(folder / "weights" / name)
        training = checkpoint.training or {}
        network, optimizer = training.get("network", {}), training.get("optimizer", {"state": {}})
        found += [_bytes(checkpoint.weights), _bytes(network), training.get("step")]
        found += [_bytes(moments) for _, moments in sorted(optimizer["state"].items())]
    return found


def _bytes(tensors: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in tensors.items()}


if __name__ == "__main__":
    main()
