"""Seconds of the parts of `rtdetr check` on a synthetic data set, and of the search for duplicates.

    python tests/benchmarks/check_speed.py

10,000 small images with 100,000 boxes, as YOLO text and as one COCO json; and all pairs of 100,000
thumbnails of noise. `--image-size 640x480` draws larger images, whose decoding then takes most.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from rtdetr_cli.data.checks.similar import SIDE, similar_pairs
from rtdetr_cli.data.splits import load_data, open_split

NUM_CLASSES = 10


def main() -> None:
    """Write the data set, time each part once, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--boxes", type=int, default=100_000)
    parser.add_argument("--image-size", default="64x48")
    parser.add_argument("--thumbnails", type=int, default=100_000)
    options = parser.parse_args()
    width, height = map(int, options.image_size.split("x"))
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        sources = write(Path(folder), options.images, options.boxes, (height, width), rng)
        for form, data in sources.items():
            show(f"read the labels, {form}", partial(read, data))
        for form, data in sources.items():
            command = [sys.executable, "-m", "rtdetr_cli", "check", f"data={data}", "json"]
            show(f"rtdetr check, {form}", partial(run, command))
    thumbnails = rng.integers(0, 256, (options.thumbnails, SIDE, SIDE), np.uint8)
    ends = [options.thumbnails * 8 // 10, options.thumbnails]
    show(f"pairs of {options.thumbnails:,} images", lambda: similar_pairs(thumbnails, ends))


def write(
    folder: Path,
    num_images: int,
    num_boxes: int,
    size_hw: tuple[int, int],
    rng: np.random.Generator,
) -> dict[str, Path]:
    """Write images of noise, one in eight bands of gray, with boxes of any place and size."""
    height, width = size_hw
    for kind in ("images", "labels"):
        (folder / kind / "train").mkdir(parents=True)
    owners = np.sort(rng.integers(0, num_images, num_boxes))
    low = rng.uniform(0, 0.5, (num_boxes, 2))
    sides = rng.uniform(0.1, 0.45, (num_boxes, 2))
    labels = rng.integers(0, NUM_CLASSES, num_boxes)
    starts = np.searchsorted(owners, np.arange(num_images + 1))
    for number in range(num_images):
        small = rng.integers(0, 256, (6, 8, 3), np.uint8)
        pixels = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        cv2.imwrite(str(folder / "images" / "train" / f"{number:06}.jpg"), pixels)
        rows = [
            f"{labels[n]} {low[n, 0] + sides[n, 0] / 2:.6f} {low[n, 1] + sides[n, 1] / 2:.6f} "
            f"{sides[n, 0]:.6f} {sides[n, 1]:.6f}\n"
            for n in range(starts[number], starts[number + 1])
        ]
        (folder / "labels" / "train" / f"{number:06}.txt").write_text("".join(rows))
    names = [f"class{n}" for n in range(NUM_CLASSES)]
    yolo, coco = folder / "data.yaml", folder / "train.json"
    yolo.write_text(f"train: images/train\nval: images/train\nnames: {json.dumps(names)}\n")
    boxes = (np.concatenate([low, sides], 1) * [width, height, width, height]).round(2)
    content = {
        "images": [
            {"id": n, "file_name": f"{n:06}.jpg", "width": width, "height": height}
            for n in range(num_images)
        ],
        "annotations": [
            {
                "id": n + 1,
                "image_id": int(owners[n]),
                "category_id": int(labels[n]),
                "bbox": boxes[n].tolist(),
                "area": float(boxes[n, 2] * boxes[n, 3]),
                "iscrowd": 0,
            }
            for n in range(num_boxes)
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(names)],
    }
    coco.write_text(json.dumps(content))
    (folder / "coco.yaml").write_text(
        "train: [train.json, images/train]\nval: [train.json, images/train]\n"
    )
    return {"YOLO": yolo, "COCO": folder / "coco.yaml"}


def read(data: Path) -> None:
    """Open the training split."""
    open_split(load_data(data), "train")


def run(command: list[str]) -> None:
    """Run a command; its output is not shown."""
    subprocess.run(command, check=True, capture_output=True)


def show(name: str, call: Callable[[], object]) -> None:
    """Print the seconds of one call, by the clock and of all cores together."""
    start, before = time.perf_counter(), sum(os.times()[:4])
    call()
    wall, cores = time.perf_counter() - start, sum(os.times()[:4]) - before
    sys.stdout.write(f"{name:30} {wall:6.1f} s, {cores:6.1f} s of CPU\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
