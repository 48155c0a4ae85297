"""Milliseconds per training step of rtdetr-n, 320 px, 8 images: ours and a peer's.

    python tests/benchmarks/bench_train_step.py --peer-python PEER/bin/python
    python tests/benchmarks/bench_train_step.py --peer-python PEER/bin/python --model rtdetr-l \\
        --imgsz 640 --batch 2 --data coco128/data.yaml --official RT-DETR/rtdetrv2_pytorch
    python tests/benchmarks/bench_train_step.py --peer-python PEER/bin/python --model dfine-n \\
        --official D-FINE

Each toolkit runs its own training with its own default recipe; both have the same network, read
the same images in the training process and train at one size. `load` is the wait for the next
batch, `step` everything from there to the updated weights, `processor` the step's processor time,
which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from interleave import Contestant, Times, race, report, reserve_stdout, serve

HERE = Path(__file__).resolve().parent
EPOCHS = 40


def main() -> None:
    """Draw or copy the images, run the race, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="data.yaml of a YOLO folder; copied first")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=3, help="steps per contestant and round")
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--official", type=Path, help="its folder; not for rtdetr-n")
    names = ("rtdetr-n", "rtdetr-l", *(f"dfine-{size}" for size in "nsmlx"))
    parser.add_argument("--model", default="rtdetr-n", choices=names)
    parser.add_argument("--imgsz", default="320")
    parser.add_argument("--batch", default="8")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = copy_data(options.data, folder) if options.data else draw_data(folder)
        sizes = [options.imgsz, options.batch]
        ours = [sys.executable, Path(__file__).resolve(), "serve", data, options.model, *sizes]
        contestants = [Contestant("ours", ours, data.parent)]
        if options.peer_python:
            python = options.peer_python.absolute()
            if options.official:
                words = [python, HERE / "official_train_step.py", options.official.absolute()]
                command = [*words, options.model, data, *sizes]
                contestants.append(Contestant("official", command, data.parent))
        if options.peer_python and not options.model.startswith("dfine"):
            own = options.model == "rtdetr-n"
            network = HERE / "peer-rtdetr-n.yaml" if own else Path(f"{options.model}.yaml")
            command = [python, HERE / "peer_train_step.py", network, data, str(EPOCHS), *sizes]
            contestants.append(Contestant("peer", command, data.parent))
        report(race(contestants, options.rounds, options.calls))


def draw_data(folder: Path) -> Path:
    """26 batches of drawn images."""
    from rtdetr_cli.config.dataset import ShapesConfig
    from rtdetr_cli.data.shapes import draw_shapes

    shapes = ShapesConfig(num_train=208, num_val=8, num_test=1)
    return draw_shapes(shapes, folder).path / "data.yaml"


def copy_data(data: Path, folder: Path) -> Path:
    """Copy the data, because peers write caches beside labels and repair images in place."""
    shutil.copytree(data.resolve().parent, folder / "data")
    return folder / "data" / data.name


def serve_ours(data: str, model: str, imgsz: str, batch: str) -> None:
    """Run as our contestant: the engine's own step on the engine's own batches."""
    replies = reserve_stdout()
    from rtdetr_cli.config.settings.train import TrainSettings
    from rtdetr_cli.core.structures import Batch
    from rtdetr_cli.engine.training.optim import train_mode
    from rtdetr_cli.engine.training.prepare import prepare
    from rtdetr_cli.engine.training.step import train_step
    from rtdetr_cli.loss.criterion import Criterion, LossConfig

    run = prepare(
        TrainSettings(
            model=f"{model}.yaml",
            data=data,
            imgsz=int(imgsz),
            batch=int(batch),
            epochs=EPOCHS,
            multi_scale=False,
            device="cpu",
            workers=0,
            plots=False,
        )
    )
    criterion = Criterion(config=LossConfig(run.recipe.loss, refinement=run.recipe.refinement))
    train_mode(run.network, run.recipe)

    def all_batches() -> Iterator[Batch]:
        for epoch in range(EPOCHS):
            run.data.train_batches.set_epoch(epoch, strong=True)
            yield from run.data.train_batches.batches()

    batches = all_batches()

    def call() -> Times:
        start = time.perf_counter()
        batch = next(batches)
        loaded, busy = time.perf_counter(), time.process_time()
        train_step(run, criterion, batch)
        done, busy = time.perf_counter(), time.process_time() - busy
        seconds = {"step": done - loaded, "together": done - start, "processor": busy}
        return milliseconds(load=loaded - start, **seconds)

    serve(replies, call)


def milliseconds(**seconds: float) -> Times:
    """Seconds to milliseconds."""
    return {name: 1000 * value for name, value in seconds.items()}


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve_ours(*sys.argv[2:])
    else:
        main()
