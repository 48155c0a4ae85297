"""What validation costs besides the network, and how its memory grows with the images.

    python tests/benchmarks/validation.py DATA.yaml [--split val] [--model rtdetr-l.yaml]

A detector that returns 300 detections at once takes the place of the network. Times are those of
the processor, of a loading process (all that it does) and of the main process (receive a batch,
convert it, collect detections; then compute the metrics), so that other programs on the machine do
not count. The network is measured on some batches, with random weights. Memory is the resident
memory of the main process after a validation of as many images, taken from DATA again and again.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import torch

from rtdetr_cli.backends.load import load_detector
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.detections import Detections
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.loader import EvalLoader
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.engine.predicting.augmentation import detect_in_variants
from rtdetr_cli.engine.session.states import ValState
from rtdetr_cli.engine.val import _run, evaluate

BATCH, DETECTIONS, LOADERS = 16, 300, 4
"""As `rtdetr val` by default; LOADERS is the largest number of loading processes it starts."""
MANY = 512
GROWTH = (500, 1000, 2000, 4000)
ROUNDS = 3


class InstantDetector:
    """Returns random detections."""

    def __init__(self, names: dict[int, str]) -> None:
        self.names = names
        rng = torch.Generator().manual_seed(0)
        corners = 600 * torch.rand(DETECTIONS, 2, generator=rng)
        sizes = 10 + 90 * torch.rand(DETECTIONS, 2, generator=rng)
        self._boxes = torch.cat([corners, corners + sizes], dim=1)
        self._scores = torch.rand(DETECTIONS, generator=rng)
        self._labels = torch.randint(len(names), (DETECTIONS,), generator=rng)

    def detect(
        self, images: torch.Tensor, _sizes_hw: list[tuple[int, int]], _max_det: int = 300
    ) -> list[Detections]:
        """The same detections for every image, in memory of their own."""
        parts = (self._boxes, self._scores, self._labels)
        copies = ((part.clone().numpy() for part in parts) for _ in range(len(images)))
        return [Detections(*arrays) for arrays in copies]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--split", default="val")
    parser.add_argument("--model", default="rtdetr-l.yaml")
    options = parser.parse_args()
    dataset = open_split(load_data(options.data, None), options.split)
    lines = ["| part | ms an image | at most, images a second |", "|---|---|---|"]
    for name, ms, processes in costs(dataset):
        lines.append(f"| {name} | {ms:.2f} | {1000 * processes / ms:.0f} |")
    grown = ["", "| images | MB | kB an image since the row above |", "|---|---|---|"]
    last, previous = 0, 0.0
    for count, mb in growth(dataset):
        more = f"{1024 * (mb - previous) / (count - last):.1f}" if last else ""
        grown.append(f"| {count} | {mb:.0f} | {more} |")
        last, previous = count, mb
    lines.append(f"| {options.model} on this CPU | {network_ms(dataset, options.model):.0f} | |")
    sys.stdout.write("\n".join(lines + grown) + "\n")


def costs(dataset: DetectionDataset) -> list[tuple[str, float, int]]:
    """Name, milliseconds an image and number of processes of each part."""
    detector, preprocessing = InstantDetector(dataset.names), Preprocessing()
    many = repeated(dataset, MANY)
    alone = EvalLoader(dataset, BATCH, preprocessing)._loader
    helped = EvalLoader(many, BATCH, preprocessing, workers=2)
    # Images that go to another device are not converted here; no device is needed to see that.
    elsewhere = EvalLoader(many, BATCH, preprocessing, 2, torch.device("meta"))
    rows = [
        (
            processor_ms(lambda: exhaust(alone), len(dataset)),
            processor_ms(lambda: evaluate(detector, many, helped), MANY),
            processor_ms(lambda: evaluate(detector, many, elsewhere), MANY),
        )
        for _ in range(ROUNDS)
    ]
    load, main_process, with_gpu = map(statistics.median, zip(*rows, strict=True))
    return [
        (f"loading, one of {LOADERS} processes", load, LOADERS),
        ("main process, network on the CPU", main_process, 1),
        ("main process, network on a GPU, without the transfer", with_gpu, 1),
    ]


def network_ms(dataset: DetectionDataset, model: str) -> float:
    """Milliseconds of the processor an image of one batch, after a warm-up."""
    detector = load_detector(model, "cpu")
    batch = next(iter(EvalLoader(dataset, BATCH, detector.preprocessing)))
    detector.detect(batch.images[:2], batch.sizes_hw[:2])
    return processor_ms(lambda: detector.detect(batch.images, batch.sizes_hw), len(batch))


def growth(dataset: DetectionDataset) -> Iterable[tuple[int, float]]:
    """Number of images, and MB after their validation; images of 64 px, which suffice."""
    detector = InstantDetector(dataset.names)
    for count in GROWTH:
        split = repeated(dataset, count)
        state = ValState(EvalLoader(split, BATCH, Preprocessing((64, 64))))
        found = _run(partial(detect_in_variants, detector), split, state)
        gc.collect()
        yield count, resident_mb()
        del found


def repeated(dataset: DetectionDataset, count: int) -> DetectionDataset:
    """A split of `count` images: those of the data set again and again."""
    records = [
        replace(record, image_id=number)
        for number, record in enumerate(islice(cycle(dataset.records), count), start=1)
    ]
    return replace(dataset, records=records, annotations=None)


def exhaust(batches: Iterable[object]) -> None:
    """Read all batches."""
    for _ in batches:
        pass


def processor_ms(call: Callable[[], object], num_images: int) -> float:
    """Milliseconds of the processor an image in this process, without its loading processes."""
    start = time.process_time()
    call()
    return 1000 * (time.process_time() - start) / num_images


def resident_mb() -> float:
    """Resident memory of this process; Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


if __name__ == "__main__":
    main()
