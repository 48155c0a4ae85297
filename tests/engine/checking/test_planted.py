"""Faults planted one by one in a clean data set: each is found under its id, and nothing else.

What check calls an error, training or validation refuses; what it passes, they take.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtdetr_cli.config.settings.check import CheckSettings
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.findings import Finding, Severity
from rtdetr_cli.data.image_cache import read_record_image
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.engine.check import check
from rtdetr_cli.engine.training.splits import open_splits

SIZE = 96
CLASSES = ("cat", "dog")
NUM_IMAGES = {"train": 12, "val": 4}
GOOD = "0 0.5 0.5 0.4 0.4\n"
Plant = Callable[[Path], object]


def draw(path: Path, seed: int, size: int = SIZE) -> None:
    """Coarse random colors: no two images are alike."""
    colors = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(colors).resize((size, size), Image.Resampling.BICUBIC).save(path, quality=90)


def boxes_of(number: int) -> list[tuple[str, list[int]]]:
    """A cat and a dog: left, top, right, bottom in pixels."""
    left, top = 6 + number, 8 + 2 * number
    return [("cat", [left, top, left + 30, top + 20]), ("dog", [left + 34, top, left + 60, 80])]


def write_yolo(root: Path) -> Path:
    """Twelve images to train on and four to validate, each with two boxes."""
    for split, count in NUM_IMAGES.items():
        for number in range(count):
            draw(root / "images" / split / f"{number}.jpg", number + 100 * (split == "val"))
            rows = []
            for name, (x1, y1, x2, y2) in boxes_of(number):
                box = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
                rows.append(f"{CLASSES.index(name)} {' '.join(f'{v / SIZE:.6f}' for v in box)}\n")
            labels(root, f"{split}/{number}", "".join(rows))
    text = "path: .\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n"
    (root / "data.yaml").write_text(text)
    return root / "data.yaml"


def labels(root: Path, name: str, text: str) -> None:
    path = root / "labels" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def add(root: Path, name: str, text: str) -> None:
    """Add rows to a label file."""
    path = root / "labels" / f"{name}.txt"
    path.write_text(path.read_text() + text)


def image(root: Path, name: str = "train/x", seed: int = 77, text: str = GOOD) -> Path:
    """One more image, with its labels."""
    path = root / "images" / f"{name}.jpg"
    draw(path, seed)
    labels(root, name, text)
    return path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def rotate(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as opened:
        opened.save(path, exif=exif)


def list_val(root: Path, *more: str) -> None:
    """Val as a list of images."""
    names = [f"images/val/{number}.jpg" for number in range(NUM_IMAGES["val"])]
    (root / "val.txt").write_text("\n".join([*names, *more]))
    change(root / "data.yaml", "val: images/val", "val: val.txt")


def many(root: Path) -> None:
    rows = [
        f"0 {0.05 + 0.045 * x} {0.05 + 0.045 * y} .04 .04\n" for x in range(20) for y in range(16)
    ]
    image(root, text="".join(rows))


def names(root: Path, *more: str) -> None:
    change(root / "data.yaml", "[cat, dog]", json.dumps([*CLASSES, *more]))


YOLO: dict[str, tuple[Plant, set[str]]] = {
    "image-unreadable": (lambda root: image(root).write_bytes(b"<html>"), set()),
    "image-missing": (lambda root: list_val(root, "images/val/gone.jpg"), set()),
    "image-damaged": (lambda root: cut(image(root)), set()),
    "image-tiny": (lambda root: draw(image(root), 3, size=30), set()),
    "image-huge": (lambda root: draw(image(root), 3, size=5100), set()),
    "image-blank": (lambda root: Image.new("RGB", (96, 96), "red").save(image(root)), set()),
    "image-rotated": (lambda root: rotate(image(root)), set()),
    "image-suffix-differs": (
        lambda root: Image.open(image(root)).convert("L").save(root / "images/train/x.jpg", "PNG"),
        set(),
    ),
    "image-in-two-splits": (
        lambda root: change(
            root / "data.yaml", "val: images/val", "val: [images/val, images/train/0.jpg]"
        ),
        set(),
    ),
    "image-without-boxes": (lambda root: image(root, text=""), set()),
    "image-without-labels": (lambda root: draw(root / "images/train/x.jpg", 77), set()),
    "image-with-many-boxes": (many, set()),
    "image-listed-twice": (lambda root: list_val(root, "images/val/0.jpg"), set()),
    "label-unreadable": (
        lambda root: (image(root), (root / "labels/train/x.txt").write_bytes(b"\xff\xfe\x00")),
        {"image-without-boxes"},
    ),
    "label-malformed": (lambda root: add(root, "train/1", "0 0.5\n"), set()),
    "label-without-image": (lambda root: labels(root, "train/gone", GOOD), set()),
    "polygon-to-box": (lambda root: image(root, text="0 .1 .1 .5 .1 .5 .5 .1 .6\n"), set()),
    "keypoints-unused": (
        lambda root: (
            change(root / "data.yaml", "path: .", "path: .\nkpt_shape: [2, 2]"),
            image(root, text="0 .5 .5 .3 .3 .4 .4 .6 .6\n"),
        ),
        set(),
    ),
    "box-not-finite": (lambda root: add(root, "train/1", "0 nan 0.5 0.1 0.1\n"), set()),
    "box-negative": (lambda root: add(root, "train/1", "0 0.5 0.5 -0.1 0.1\n"), set()),
    "box-outside-image": (lambda root: add(root, "train/1", "0 48 48 10 10\n"), set()),
    "box-clipped": (lambda root: add(root, "train/1", "0 0.95 0.5 0.2 0.2\n"), set()),
    "box-without-area": (lambda root: add(root, "train/1", "0 0.5 0.5 0 0.1\n"), set()),
    "box-repeated": (lambda root: image(root, text=GOOD * 2), set()),
    "box-near-identical": (lambda root: image(root, text=f"{GOOD}0 .5 .5 .401 .4\n"), set()),
    "box-of-two-classes": (lambda root: image(root, text=f"{GOOD}1 .5 .5 .401 .4\n"), set()),
    "box-tiny": (lambda root: add(root, "train/1", "0 0.5 0.5 0.002 0.1\n"), set()),
    "class-unknown": (lambda root: add(root, "train/1", "2 0.5 0.5 0.1 0.1\n"), set()),
    "class-unused": (lambda root: names(root, "bird"), set()),
    "class-not-in-train": (
        lambda root: (names(root, "bird"), add(root, "val/1", "2 .9 .9 .1 .1\n")),
        set(),
    ),
    "class-not-in-val": (
        lambda root: (
            names(root, "bird"),
            [add(root, f"train/{n}", "2 .9 .9 .1 .1\n") for n in range(10)],
        ),
        set(),
    ),
    "class-rare": (
        lambda root: (
            names(root, "bird"),
            [add(root, f"{one}/1", "2 .9 .9 .1 .1\n") for one in NUM_IMAGES],
        ),
        set(),
    ),
    "class-imbalance": (
        lambda root: [
            image(
                root,
                f"train/m{n}",
                n + 500,
                "".join(
                    f"0 {0.05 + 0.045 * x} {0.04 * y + 0.05} .04 .03\n"
                    for x in range(20)
                    for y in range(15)
                ),
            )
            for n in range(5)
        ],
        set(),
    ),
    "class-names-similar": (
        lambda root: (
            names(root, "Dog"),
            [add(root, f"train/{n}", "2 .9 .9 .1 .1\n") for n in range(10)],
            add(root, "val/0", "2 .9 .9 .1 .1\n"),
        ),
        set(),
    ),
    "split-missing": (lambda root: change(root / "data.yaml", "images/val", "gone"), set()),
    "split-empty": (
        lambda root: (
            (root / "empty").mkdir(),
            change(root / "data.yaml", "images/val", "empty"),
        ),
        set(),
    ),
    "labels-missing": (
        lambda root: [path.unlink() for path in (root / "labels/val").iterdir()],
        set(),
    ),
    "names-missing": (lambda root: change(root / "data.yaml", "names: [cat, dog]\n", ""), set()),
    "val-missing": (lambda root: change(root / "data.yaml", "val: images/val\n", ""), set()),
    "boxes-missing": (
        lambda root: [labels(root, f"val/{n}", "") for n in range(NUM_IMAGES["val"])],
        set(),
    ),
}
"""By the id that is expected: how to plant the fault, and what follows from it besides."""


def found_in(data: Path) -> dict[str, Finding]:
    return {one.id: one for one in check(CheckSettings(data=str(data)))}


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    return write_yolo(tmp_path)


def test_nothing_is_found_in_a_clean_data_set(yolo, capsys):
    assert found_in(yolo) == {}
    assert capsys.readouterr().out.endswith("0 errors, 0 warnings, 0 notes\n")


@pytest.mark.parametrize("kind", YOLO)
def test_a_planted_fault_is_found_under_its_id(kind, yolo):
    plant, more = YOLO[kind]
    plant(yolo.parent)
    found = found_in(yolo)
    assert found.keys() == {kind} | more
    assert all(one.count and one.examples for one in found.values())
    is_error = any(one.severity is Severity.ERROR for one in found.values())
    assert is_refused(yolo) == is_error


def is_refused(data: Path) -> bool:
    """Whether training (on a set without val: with val=false) or validation refuses it."""
    try:
        has_val = "val:" in data.read_text()
        settings = TrainSettings(data=str(data), model="rtdetr-n.yaml", val=has_val)
        for split in filter(None, open_splits(settings)):
            for record in split.records:
                read_record_image(record)
        if has_val:
            open_split(load_data(str(data)), "val")
    except DataError:
        return True
    return False
