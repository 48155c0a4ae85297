"""Milliseconds per training image with `cache=` ram, disk and off; one process, one thread.

    python tests/benchmarks/bench_cache.py data.yaml

`read` gets the decoded image and reads all of it, `official` is one image of a batch of 16 at 640
px with the default augmentation, `deim` the same with mosaic and mixup. Caches are filled before
timing starts; the files are in the page cache of the system.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable

import cv2
import torch
from interleave import Times, report

from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.image_cache import open_images
from rtdetr_cli.data.loader import LoaderConfig, TrainLoader
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.data.transforms import AugmentConfig

RECIPES = {"official": AugmentConfig(), "deim": AugmentConfig(mosaic=0.5, mixup=0.5)}


def main() -> None:
    """Time the three in turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as home:
        os.environ["RTDETR_HOME"] = home
        dataset = open_split(load_data(options.data), "train")
        measures = {kind: contestant(dataset, kind) for kind in ("ram", "disk", "off")}
        times: dict[str, list[Times]] = {kind: [] for kind in measures}
        for _ in range(options.rounds):
            for kind, calls in measures.items():
                times[kind].append(
                    {name: timed(call, len(dataset)) for name, call in calls.items()}
                )
    report(times)


def contestant(dataset: DetectionDataset, kind: str) -> dict[str, Callable[[], None]]:
    """The calls to time with one kind of cache, each over all images; the cache is filled."""
    cached = open_images(dataset.records, kind)

    def read() -> None:
        for position in range(len(dataset)):
            cached.read(position).max()

    def batches(name: str) -> Callable[[], None]:
        config = LoaderConfig(16, (640, 640), workers=0, augment=RECIPES[name], cache=kind)
        loader = TrainLoader(dataset, config)

        def run() -> None:
            for _ in loader.batches():
                pass

        return run

    calls = {"read": read} | {name: batches(name) for name in RECIPES}
    for call in calls.values():
        call()
    return calls


def timed(call: Callable[[], None], count: int) -> float:
    """Milliseconds of a call per image."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3 / count


if __name__ == "__main__":
    main()
