"""YOLO data sets: damaged label files, lists of images and names, also of special files."""

from __future__ import annotations

import os
import random
from pathlib import Path

from PIL import Image

from rtdetr_cli.config.dataset import DatasetConfig
from rtdetr_cli.data.splits import open_split
from rtdetr_cli.evaluation.coco import CocoEvaluator

ODD = (
    *("nan", "-inf", "1e999", "-1", "9" * 5000, "0x1", "1_0", "", "a", "\0", "\x1b[31m", "\x1c"),
    *("\u0663", "\u2028", "1e-320", "0.5 " * 5000, "\ufeff", "1.5", "2", "1e300", "\r"),
)
NAMES = ("a", "", "\x1b[31m", "x" * 10_000, "a,b", '"', "\n")


def case(rng: random.Random, folder: Path) -> None:
    """Write two images with one damaged label file; open and score the split."""
    images, labels = folder / "images", folder / "labels"
    for path in (images, labels):
        path.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (60, 40)).save(images / name)
    (labels / "b.txt").write_text("0 .5 .5 .2 .2\n")
    _write_labels(rng, labels / "a.txt")
    entry = "images"
    if rng.random() < 0.2:
        entry = "train.txt"
        _write_list(rng, folder / entry)
    names = dict(enumerate(rng.choices(NAMES, k=rng.choice((1, 2, 3)))))
    split = open_split(DatasetConfig(folder, train=(entry,), names=names), "train")
    CocoEvaluator(split.ground_truth(), split.category_ids).compute()


def _write_labels(rng: random.Random, path: Path) -> None:
    kind = rng.random()
    if kind < 0.05:
        rng.choice((lambda: os.mkfifo(path), path.mkdir, lambda: path.symlink_to("a.txt")))()
    elif kind < 0.1:
        path.symlink_to(rng.choice(("/dev/zero", "/dev/stdin", "/proc/self/mem", "absent")))
    elif kind < 0.15:
        with path.open("wb") as file:
            file.truncate(rng.choice((0, 1 << 20, 1 << 40)))
    elif kind < 0.3:
        path.write_bytes(rng.randbytes(rng.randrange(400)))
    else:
        lines = [["0", "0.5", "0.5", "0.2", "0.2"] for _ in range(3)]
        lines[1] += ["0.1", "0.3", "0.2", "0.4"][: rng.choice((0, 2, 4))]
        for _ in range(rng.choice((1, 2, 5))):
            line = rng.choice(lines)
            line[rng.randrange(len(line))] = (
                rng.choice(ODD)
                if rng.random() < 0.3
                else str(rng.choice((0, rng.uniform(-0.2, 0.7))))
            )
        path.write_text("\n".join(map(" ".join, lines)), encoding=rng.choice(("utf-8", "utf-16")))


def _write_list(rng: random.Random, path: Path) -> None:
    lines = ["images/a.png", "./images/b.png"]
    odd = (
        "",
        "\0",
        "x" * 300,
        "x/" * 3000,
        "~",
        "/dev/zero",
        "..",
        "images",
        "~nobody/a",
        "\udcff",
    )
    lines[rng.randrange(2)] = rng.choice((*odd, lines[0]))
    path.write_bytes("\n".join(lines).encode("utf-8", rng.choice(("replace", "surrogateescape"))))
