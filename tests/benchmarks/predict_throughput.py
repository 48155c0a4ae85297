"""Images per second of whole predictions, annotated files written, and the network's share.

    python tests/benchmarks/predict_throughput.py SOURCE [--model rtdetr-n.pt]
        [--beside OTHER/CHECKOUT] [--peer-python PEER/bin/python --peer-model rtdetr-n.yaml]

SOURCE is a folder of images or a video. One call predicts all of it, or the first --images of a
folder, with eight boxes drawn on each image. instant:FILE replaces the network by its first
outputs, which shows what everything else can reach; auto:FILE uses `backend=auto`. Several models
have commas between them. They, another checkout, such as the release before, and Ultralytics take
turns. Network is the share of the time of the call.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from interleave import Contestant, Times, race, report, reserve_stdout, serve

HERE = Path(__file__).resolve().parent
BOXES = {"conf": 0.0, "max_det": 8}
"""So that random weights draw as many boxes as trained ones on a usual image."""


def main() -> None:
    """Run the race and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--model", default="rtdetr-n.pt", help="a file, or instant:FILE")
    parser.add_argument("--images", type=int, default=200, help="of a folder, repeated if fewer")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--no-save", action="store_true", help="write no files")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--beside", type=Path, help="root of another checkout")
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--peer-model", default="rtdetr-n.yaml")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = images_of(options.source.resolve(), options.images, folder / "images")
        job = [str(source), str(options.batch), str(int(not options.no_save)), name]
        script = Path(__file__).resolve()
        ours = [sys.executable, script, "ours"]
        contestants = [
            Contestant(f"ours {label(model)}", [*ours, HERE.parents[1], model, *job], folder)
            for model in options.model.split(",")
        ]
        for model in options.peer_model.split(",") if options.peer_python else ():
            peer = [options.peer_python.absolute(), script, "peer", "-", model]
            contestants.append(Contestant(f"peer {label(model)}", [*peer, *job], folder))
        if options.beside:
            root = options.beside.resolve()
            contestants.append(Contestant("beside", [*ours, root, options.model, *job], folder))
        report(race(contestants, options.rounds, 1))


def label(model: str) -> str:
    """`auto:/a/n.pt` is auto:n.pt."""
    kind, colon, file = model.rpartition(":")
    return kind + colon + Path(file).name


def images_of(source: Path, count: int, folder: Path) -> Path:
    """A folder with `count` links to the images of a folder, in turn; a video is left as it is."""
    if source.is_file():
        return source
    folder.mkdir()
    found = sorted(source.rglob("*.jpg"))
    for number in range(count):
        shutil.copy(found[number % len(found)], folder / f"{number:05}.jpg")
    return folder


def contest(root: str, model: str, *job: str) -> None:
    """Run as a contestant; `root` is the checkout, `-` for the peer."""
    replies = reserve_stdout()
    source, batch, save, folder = job
    keys = {"batch": int(batch), "save": bool(int(save)), "project": folder, **BOXES}
    predict = peer(model) if root == "-" else ours(root, model)

    def call() -> Times:
        start, cpu = time.perf_counter(), time.process_time()
        seconds = [results.speed["inference"] / 1000 for results in predict(source, keys)]
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        for run in Path(folder).glob("predict*"):
            shutil.rmtree(run)
        each = 1000 / len(seconds)
        return {
            "an image": wall * each,
            "network": sum(seconds) * each,
            "rest": (wall - sum(seconds)) * each,
            "CPU": cpu * each,
        }

    serve(replies, call)


def ours(root: str, model: str) -> Callable[[str, dict[str, Any]], Iterable[Any]]:
    """Prediction of a checkout."""
    sys.path.insert(0, root)
    from rtdetr_cli.backends.load import load_detector
    from rtdetr_cli.config.settings.predict import PredictSettings
    from rtdetr_cli.engine.exporting.runtime_cache import open_detector
    from rtdetr_cli.engine.predict import PredictState, stream_results

    if model.startswith("auto:"):
        file = model.removeprefix("auto:")
        settings = PredictSettings(source="-", model=file, device="cpu", backend="auto")
        detector: Any = open_detector(settings)
    else:
        detector = load_detector(model.removeprefix("instant:"), "cpu")
    if model.startswith("instant:"):
        make_instant(detector)

    def predict(source: str, keys: dict[str, Any]) -> Iterable[Any]:
        settings = PredictSettings(source=source, **keys)
        return stream_results(detector, source, PredictState(settings))

    return predict


def make_instant(detector: Any) -> None:
    """Let a detector return its first detections again and again."""
    found: list[Any] = []
    detect = detector.detect

    def instant(images: Any, sizes_hw: Any, *rest: Any) -> list[Any]:
        if not found:
            found.append(detect(images[:1], sizes_hw[:1], *rest)[0])
        return found * len(sizes_hw)

    detector.detect = instant


def peer(model: str) -> Callable[[str, dict[str, Any]], Iterable[Any]]:
    """Prediction of Ultralytics, as a black box."""
    from ultralytics import RTDETR, settings

    settings.update({"sync": False})
    detector = RTDETR(model)

    def predict(source: str, keys: dict[str, Any]) -> Iterable[Any]:
        fixed = {"imgsz": 640, "device": "cpu", "stream": True, "verbose": False}
        return detector.predict(source, **fixed, **keys)

    return predict


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    if sys.argv[1:2] in (["ours"], ["peer"]):
        contest(*sys.argv[2:])
    else:
        main()
