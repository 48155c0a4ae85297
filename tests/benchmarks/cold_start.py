"""What one prediction costs in a process of its own: `rtdetr predict` beside `yolo predict`.

    python tests/benchmarks/cold_start.py IMAGE MODEL... [--peer PYTHON WEIGHTS] [--runs 5]

Each round starts one process per model, one after the other, so that other programs on the machine
slow all of them alike; medians of wall time, processor time and peak memory, and ratios to the
peer. PYTHON is the interpreter of an environment with ultralytics. Compiled modules are kept, as
pip keeps those of an installed package. Then, for each of our models, where the time goes: imports
by package (-X importtime) and the stages of the run.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rtdetr_cli.core.console import result

ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
}

STAGES = """
import sys, time
start = time.perf_counter()
from rtdetr_cli.cli import main
from rtdetr_cli.engine import predict
from rtdetr_cli.engine.predicting import views
took = {"import of rtdetr_cli": time.perf_counter() - start}
def timed(owner, name, stage):
    function = getattr(owner, name)
    def call(*args, **keys):
        begin = time.perf_counter()
        try:
            return function(*args, **keys)
        finally:
            took[stage] = took.get(stage, 0) + time.perf_counter() - begin
    setattr(owner, name, call)
timed(predict, "open_detector", "model: imports of its runtime, load, session")
timed(views.View, "planes", "resize and convert")
timed(predict.RunWriter, "write", "draw, encode, write")
class Detector:
    def __init__(self, inner): self.inner = inner
    def __getattr__(self, name): return getattr(self.inner, name)
opened = predict.open_detector
def open_timed(settings):
    detector = opened(settings)
    timed(detector, "detect", "network")
    return detector
predict.open_detector = open_timed
try:
    main.run(sys.argv[1:])
except SystemExit:
    pass
took["all"] = time.perf_counter() - start
print("TOOK", *(f"{stage} {1000 * seconds:.0f} ms" for stage, seconds in took.items()), sep="\\n  ")
"""


class Cost(NamedTuple):
    """Of one process."""

    wall_s: float
    processor_s: float
    peak_mb: float


def run(command: list[str], folder: str) -> Cost:
    """Run a process to its end."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    log = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{log}")
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def ours(model: str, image: str) -> list[str]:
    """The arguments of `python` that predict with our command."""
    return ["-m", "rtdetr_cli", "predict", f"model={model}", f"source={image}", "device=cpu"]


def peer(weights: str, image: str) -> list[str]:
    """The same with Ultralytics' command."""
    program = "from ultralytics.cfg import entrypoint; entrypoint()"
    return ["-c", program, "predict", f"model={weights}", f"source={image}", "device=cpu"]


def compare(commands: dict[str, list[str]], runs: int, folder: str) -> None:
    """Print the medians of interleaved runs; the last command is what the ratios refer to."""
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for number in range(runs + 1):  # the first fills the caches of the disk
        for name, command in commands.items():
            cost = run(command, folder)
            if number:
                costs[name].append(cost)
    medians = {name: Cost(*map(median, zip(*one, strict=True))) for name, one in costs.items()}
    base = [*medians.values()][-1]
    result("| model | wall s | of it | processor s | of it | peak MB | of it |")
    result("|---|---|---|---|---|---|---|")
    for name, cost in medians.items():
        cells = (
            f"{value:.2f} | {value / whole:.2f}" for value, whole in zip(cost, base, strict=True)
        )
        result(f"| {name} | {' | '.join(cells)} |")


def explain(model: str, image: str, folder: str) -> None:
    """Print where the time of one run goes."""
    arguments = ours(model, image)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    packages: Counter[str] = Counter()
    rows = re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)", done.stderr)
    for microseconds, name in rows:
        packages[name.partition(".")[0]] += int(microseconds)
    result(f"{model}: {len(rows)} modules imported, {sum(packages.values()) / 1000:.0f} ms")
    for name, microseconds in packages.most_common(8):
        result(f"  {name} {microseconds / 1000:.0f} ms")
    done = subprocess.run(
        [sys.executable, "-c", STAGES, *arguments[2:]],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    for line in done.stdout[done.stdout.index("TOOK") :].splitlines():
        result(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("image")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--peer", nargs=2, metavar=("PYTHON", "WEIGHTS"))
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    image, *models = (str(Path(one).absolute()) for one in (options.image, *options.models))
    commands = {one: [sys.executable, *ours(one, image)] for one in models}
    if options.peer:
        python, weights = (str(Path(one).absolute()) for one in options.peer)
        commands[weights] = [python, *peer(weights, image)]
    with tempfile.TemporaryDirectory() as folder:
        compare(commands, options.runs, folder)
        for model in models:
            explain(model, image, folder)


if __name__ == "__main__":
    main()
