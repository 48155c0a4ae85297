"""Measure the cost of waiting threads beside other processes: training and prediction of rtdetr-n.

    python tests/benchmarks/shared_machine.py --spins 300000,2000,0 --busy 0,1,2

Every contestant is this toolkit with another GOMP_SPINCOUNT (300000 is libgomp's default) and,
after a slash, ONNX Runtime's spinning on (1), off (0) or for that many microseconds. --busy lists
the numbers of busy processes per core. --quota 0.5 puts each contestant into a control group with
that many CPUs, which needs root and cgroup version 1 or 2.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from interleave import Contestant, Times, race, report, reserve_stdout, serve

GROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 100_000
STEPS, PREDICTIONS, IMAGES = 1, 5, 8


def main() -> None:
    """Run a race for each number of busy processes, print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spins", default="300000/1,2000/0,0/0")
    parser.add_argument("--busy", default="0,1,2")
    parser.add_argument("--quota", type=float)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=1)
    options = parser.parse_args()
    for busy in map(int, options.busy.split(",")):
        with tempfile.TemporaryDirectory() as name, group(options.quota) as into:
            contestants = []
            for variant in options.spins.split(","):
                words = [sys.executable, Path(__file__).resolve(), "serve", variant, *into]
                contestants.append(Contestant(variant.replace("/", " onnx "), words, Path(name)))
            with busy_processes(busy):
                times = race(contestants, options.rounds, options.calls)
        sys.stdout.write(f"\n{busy} busy processes per core, quota {options.quota}\n\n")
        report(dict(reversed(times.items())))


@contextmanager
def busy_processes(per_core: int) -> Iterator[None]:
    """Run busy processes in the background."""
    cores = len(os.sched_getaffinity(0))
    jobs = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(per_core * cores)
    ]
    try:
        yield
    finally:
        for job in jobs:
            job.kill()
            job.wait()


@contextmanager
def group(quota: float | None) -> Iterator[list[str]]:
    """A control group with a quota, as the argument of a contestant; empty without a quota."""
    if quota is None:
        yield []
        return
    is_v1 = (GROUPS / "cpu" / "cpu.cfs_quota_us").exists()
    folder = (GROUPS / "cpu" if is_v1 else GROUPS) / "rtdetr-benchmark"
    folder.mkdir()
    limit = str(int(quota * PERIOD_US))
    if is_v1:
        (folder / "cpu.cfs_quota_us").write_text(limit)
    else:
        (folder / "cpu.max").write_text(f"{limit} {PERIOD_US}")
    try:
        yield [str(folder)]
    finally:
        folder.rmdir()


def serve_ours(variant: str, *folder: str) -> None:
    """Run as a contestant: a training step, a validation batch, predictions in two runtimes."""
    spins, _, onnx_spins = variant.partition("/")
    os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT=spins)
    for name in folder:
        (Path(name) / "cgroup.procs").write_text(str(os.getpid()))
    replies = reserve_stdout()
    serve(replies, make_call(onnx_spins or "0"))


def make_call(onnx_spins: str) -> Callable[[], Times]:
    """The call to time."""
    import onnxruntime
    import torch
    from bench_train_step import draw_data, milliseconds

    from rtdetr_cli.backends.load import load_detector
    from rtdetr_cli.backends.onnx.detector import OnnxDetector
    from rtdetr_cli.config.settings.export import ExportSettings
    from rtdetr_cli.config.settings.train import TrainSettings
    from rtdetr_cli.engine.export import export
    from rtdetr_cli.engine.training.optim import train_mode
    from rtdetr_cli.engine.training.prepare import prepare
    from rtdetr_cli.engine.training.step import train_step
    from rtdetr_cli.loss.criterion import Criterion

    data = draw_data(Path(tempfile.mkdtemp(dir=".")))
    common = {"model": "rtdetr-n.yaml", "device": "cpu", "imgsz": 192}
    settings = TrainSettings(
        **common, data=str(data), batch=4, multi_scale=False, workers=0, plots=False
    )
    run = prepare(settings)
    train_mode(run.network, run.recipe)
    criterion = Criterion()
    batches = list(run.data.train_batches.batches())
    torch_detector = load_detector("rtdetr-n.yaml", "cpu")
    file = export(ExportSettings(**common, output=str(data.parent / "n.onnx"), verify=False))

    class Spinning(OnnxDetector):
        def _open(self, path: Path, device: str | None) -> tuple[object, str]:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            key = "allow_spinning" if onnx_spins in {"0", "1"} else "spin_duration_us"
            options.add_session_config_entry(f"session.intra_op.{key}", onnx_spins)
            providers = ["CPUExecutionProvider"]
            return onnxruntime.InferenceSession(str(path), options, providers=providers), ""

    onnx_detector = Spinning(file, "cpu")
    images = torch.rand(IMAGES, 3, 192, 192)
    sizes = [(192, 192)] * IMAGES

    def call() -> Times:
        moments = [time.perf_counter()]
        for batch in batches[:STEPS]:
            train_step(run, criterion, batch)
        moments.append(time.perf_counter())
        torch_detector.detect(images, sizes)
        moments.append(time.perf_counter())
        for detector in (torch_detector, onnx_detector):
            for _ in range(PREDICTIONS):
                detector.detect(images[:1], sizes[:1])
            moments.append(time.perf_counter())
        spans = [after - before for before, after in itertools.pairwise(moments)]
        return milliseconds(
            **dict(zip(("step", "validation", "predict", "predict onnx"), spans, strict=True))
        )

    return call


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve_ours(*sys.argv[2:])
    else:
        main()
