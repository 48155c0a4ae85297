"""Faults planted one by one in a clean data set: each is found under its id, and nothing else.

What check calls an error, training or validation refuses; what it passes, they take.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rtdetr_cli.cli.main import run
from rtdetr_cli.config.settings.check import CheckSettings
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.findings import Finding, Severity
from rtdetr_cli.data.image_cache import read_record_image
from rtdetr_cli.data.kinds import KINDS
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.engine.check import check
from rtdetr_cli.engine.training.splits import open_splits

SIZE = 96
CLASSES = ("cat", "dog")
NUM_IMAGES = {"train": 12, "val": 4}
GOOD = "0 0.5 0.5 0.4 0.4\n"
Plant = Callable[[Path], object]


def grid(rows: int) -> str:
    """Labels of 19 cats in each row."""
    places = ((0.05 + 0.04 * x, 0.05 + 0.04 * y) for x in range(19) for y in range(rows))
    return "".join(f"0 {cx} {cy} .03 .03\n" for cx, cy in places)


def draw(path: Path, seed: int, size: int = SIZE, rotation: int = 1) -> None:
    """Coarse random colors: no two images are alike."""
    colors = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = rotation
    height = size if rotation == 1 else size - 6
    drawn = Image.fromarray(colors).resize((size, height))
    drawn.save(path, quality=90, exif=exif)


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


def image(root: Path, text: str = GOOD) -> Path:
    """One more image to train on, with its labels."""
    number = len(list((root / "images/train").iterdir()))
    path = root / "images/train" / f"{number}.jpg"
    draw(path, number)
    labels(root, f"train/{number}", text)
    return path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def as_png(path: Path) -> None:
    with Image.open(path) as opened:
        opened.save(path, "PNG")


def label_of(path: Path) -> Path:
    return path.parents[2] / "labels/train" / f"{path.stem}.txt"


def list_val(root: Path, *more: str) -> None:
    """Val as a list of images."""
    names = [f"images/val/{number}.jpg" for number in range(NUM_IMAGES["val"])]
    (root / "val.txt").write_text("\n".join([*names, *more]))
    change(root / "data.yaml", "val: images/val", "val: val.txt")


def names(root: Path, *more: str) -> None:
    change(root / "data.yaml", "[cat, dog]", json.dumps([*CLASSES, *more]))


YOLO: dict[str, Plant] = {
    "image-unreadable": (lambda root: image(root).write_bytes(b"<html>")),
    "image-missing": (lambda root: list_val(root, "images/val/gone.jpg")),
    "image-damaged": (lambda root: cut(image(root))),
    "image-tiny": (lambda root: draw(image(root), 303, size=30)),
    "image-huge": (lambda root: draw(image(root), 304, size=1100)),
    "image-blank": (lambda root: Image.new("RGB", (96, 96), "red").save(image(root))),
    "image-rotated": (lambda root: draw(image(root), 305, rotation=6)),
    "image-suffix-differs": (lambda root: as_png(image(root))),
    "image-in-two-splits": (
        lambda root: change(
            root / "data.yaml", "val: images/val", "val: [images/val, images/train/0.jpg]"
        )
    ),
    "image-without-boxes": (lambda root: image(root, "")),
    "image-without-labels": (lambda root: label_of(image(root)).unlink()),
    "image-with-many-boxes": (lambda root: image(root, grid(16))),
    "image-listed-twice": (lambda root: list_val(root, "images/val/0.jpg")),
    "label-unreadable": (lambda root: label_of(image(root)).write_bytes(b"\xff\xfe\x00")),
    "label-malformed": (lambda root: add(root, "train/1", "0 0.5\n")),
    "label-without-image": (lambda root: labels(root, "train/gone", GOOD)),
    "polygon-to-box": (lambda root: image(root, "0 .1 .1 .5 .1 .5 .5\n")),
    "keypoints-unused": (
        lambda root: (
            change(root / "data.yaml", "path: .", "path: .\nkpt_shape: [2, 2]"),
            image(root, "0 .5 .5 .3 .3 .4 .4 .6 .6\n"),
        )
    ),
    "box-not-finite": (lambda root: add(root, "train/1", "0 nan 0.5 0.1 0.1\n")),
    "box-negative": (lambda root: add(root, "train/1", "0 0.5 0.5 -0.1 0.1\n")),
    "box-outside-image": (lambda root: add(root, "train/1", "0 48 48 10 10\n")),
    "box-clipped": (lambda root: add(root, "train/1", "0 0.95 0.5 0.2 0.2\n")),
    "box-without-area": (lambda root: add(root, "train/1", "0 0.5 0.5 0 0.1\n")),
    "box-repeated": (lambda root: image(root, GOOD * 2)),
    "box-near-identical": (lambda root: image(root, f"{GOOD}0 .5 .5 .401 .4\n")),
    "box-of-two-classes": (lambda root: image(root, f"{GOOD}1 .5 .5 .401 .4\n")),
    "box-tiny": (lambda root: add(root, "train/1", "0 0.5 0.5 0.002 0.1\n")),
    "class-unknown": (lambda root: add(root, "train/1", "2 0.5 0.5 0.1 0.1\n")),
    "class-unused": (lambda root: names(root, "bird")),
    "class-not-in-train": (
        lambda root: (names(root, "bird"), add(root, "val/1", "2 .9 .9 .1 .1\n"))
    ),
    "class-not-in-val": (
        lambda root: (
            names(root, "bird"),
            [add(root, f"train/{n}", "2 .9 .9 .1 .1\n") for n in range(10)],
        )
    ),
    "class-rare": (
        lambda root: (
            names(root, "bird"),
            [add(root, f"{one}/1", "2 .9 .9 .1 .1\n") for one in NUM_IMAGES],
        )
    ),
    "class-imbalance": (lambda root: [image(root, grid(15)) for _ in range(5)]),
    "class-names-similar": (
        lambda root: (
            names(root, "Dog"),
            [add(root, f"train/{n}", "2 .9 .9 .1 .1\n") for n in range(10)],
            add(root, "val/0", "2 .9 .9 .1 .1\n"),
        )
    ),
    "split-missing": (lambda root: change(root / "data.yaml", "images/val", "gone")),
    "split-empty": (
        lambda root: (
            (root / "empty").mkdir(),
            change(root / "data.yaml", "images/val", "empty"),
        )
    ),
    "labels-missing": (lambda root: [path.unlink() for path in (root / "labels/val").iterdir()]),
    "val-missing": (lambda root: change(root / "data.yaml", "val: images/val\n", "")),
    "boxes-missing": (
        lambda root: [labels(root, f"val/{n}", "") for n in range(NUM_IMAGES["val"])]
    ),
}
"""How to plant a fault, by the id under which it is found."""


Json = dict[str, list[dict[str, Any]]]


def edit(root: Path, change_content: Callable[[Json], object]) -> None:
    """Change the json of train."""
    path = root / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    change_content(content)
    path.write_text(json.dumps(content))


def values(key: str, at: int, **changed: object) -> Plant:
    """Change an entry of images, annotations or categories."""
    return lambda root: edit(root, lambda content: content[key][at].update(changed))


def entry(key: str, source: int, **changed: object) -> Plant:
    """Add an entry: that of a position, changed."""
    return lambda root: edit(
        root, lambda content: content[key].append({**content[key][source], **changed})
    )


COCO: dict[str, Plant] = {
    "json-broken": lambda root: change(root / "annotations/instances_train.json", "images", "im"),
    "images-missing": lambda root: (root / "images/train").rename(root / "elsewhere"),
    "image-entry-malformed": values("images", 1, file_name=None),
    "image-id-repeated": values("images", 1, id=1),
    "image-under-several-ids": lambda root: (
        entry("images", 1, id=99)(root),
        values("annotations", 2, image_id=99)(root),
    ),
    "image-listed-twice": entry("images", 1),
    "image-size-differs": values("images", 1, width=50),
    "image-size-absent": values("images", 1, width=None),
    "image-size-unrotated": lambda root: (
        draw(root / "images/train/1.jpg", 3, rotation=6),
        values("images", 1, height=SIZE - 6)(root),
    ),
    "image-missing": entry("images", 1, id=99, file_name="gone.jpg"),
    "image-not-listed": lambda root: draw(root / "images/train/x.jpg", 99),
    "image-without-boxes": lambda root: (
        draw(root / "images/train/x.jpg", 99),
        entry("images", 1, id=99, file_name="x.jpg")(root),
    ),
    "label-malformed": values("annotations", 1, bbox="x"),
    "annotation-without-image": values("annotations", 1, image_id=99),
    "annotation-id-repeated": values("annotations", 1, id=1),
    "category-malformed": values("categories", 1, name=None),
    "category-id-repeated": values("categories", 1, id=1),
    "category-name-repeated": values("categories", 1, name="cat"),
    "class-unknown": values("annotations", 1, category_id=99),
    "names-differ": lambda root: (
        entry("categories", 1, id=9, name="bird")(root),
        (root / "data.yaml").write_text((root / "data.yaml").read_text().partition("names")[0]),
    ),
    "box-not-finite": values("annotations", 1, bbox=[1, 1, float("nan"), 5]),
    "box-negative": values("annotations", 1, bbox=[1, 1, -5, 5]),
    "box-outside-image": values("annotations", 1, bbox=[90, 1, 50, 5]),
    "box-clipped": values("annotations", 1, bbox=[90, 1, 10, 5]),
    "box-without-area": values("annotations", 1, bbox=[90, 1, 0, 5]),
    "box-repeated": entry("annotations", 1),
    "box-near-identical": entry("annotations", 1, id=99),
    "jsons-joined": lambda root: divide(root),
}
VOC: dict[str, Plant] = {
    "label-missing": lambda root: (root / "Annotations/0.xml").unlink(),
    "label-unreadable": lambda root: (root / "Annotations/0.xml").write_text("<annotation>"),
    "label-without-image": lambda root: (root / "Annotations/x.xml").write_text("<annotation/>"),
    "label-malformed": lambda root: change(root / "Annotations/0.xml", "<xmin>", "<xmin>x"),
    "class-unknown": lambda root: change(root / "Annotations/0.xml", "<name>cat", "<name>car"),
    "box-not-finite": lambda root: voc_edge(root, "nan"),
    "box-outside-image": lambda root: voc_edge(root, "999"),
    "box-clipped": lambda root: voc_edge(root, "110"),
    "box-without-area": lambda root: voc_edge(root, "1"),
    "image-missing": lambda root: (root / "JPEGImages/0.jpg").unlink(),
    "image-size-differs": lambda root: change(root / "Annotations/0.xml", "<width>", "<width>1"),
    "image-listed-twice": lambda root: (root / "ImageSets/Main/val.txt").write_text(
        (root / "ImageSets/Main/val.txt").read_text() * 2
    ),
    "split-empty": lambda root: (root / "ImageSets/Main/val.txt").write_text(""),
}


def voc_edge(root: Path, right: str) -> None:
    path = root / "Annotations/0.xml"
    path.write_text(re.sub("<xmax>[^<]*", f"<xmax>{right}", path.read_text(), count=1))


def divide(root: Path) -> None:
    """Two jsons for val, each with half of the images."""
    path = root / "annotations/instances_val.json"
    content = json.loads(path.read_text())
    for name, start in (("instances_val.json", 0), ("more.json", 2)):
        images = content["images"][start : start + 2]
        chosen = {one["id"] for one in images}
        boxes = [one for one in content["annotations"] if one["image_id"] in chosen]
        half = {**content, "images": images, "annotations": boxes}
        path.with_name(name).write_text(json.dumps(half))
    entries = "[annotations/instances_val.json, annotations/more.json, images/val]"
    change(root / "data.yaml", "annotations/instances_val.json", entries)


def found_in(data: Path) -> dict[str, Finding]:
    return {one.id: one for one in check(CheckSettings(data=str(data)))}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The clean data set in all formats."""
    root = tmp_path_factory.mktemp("clean")
    data = write_yolo(root / "yolo")
    for kind in ("coco", "voc"):
        assert run(["convert", f"data={data}", f"format={kind}", f"out={root / kind}"]) == 0
    return {kind: root / kind for kind in ("yolo", "coco", "voc")}


@pytest.fixture(autouse=True)
def _low_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtdetr_cli.data.checks.files.HUGE_PIXELS", 1e6)


@pytest.mark.parametrize("kind", ["yolo", "coco", "voc"])
def test_nothing_is_found_in_a_clean_data_set(kind, clean, capsys):
    assert found_in(clean[kind] / "data.yaml") == {}
    assert capsys.readouterr().out.endswith("0 errors, 0 warnings, 0 notes\n")


@pytest.mark.parametrize(
    ("layout", "kind"),
    [
        *(("yolo", kind) for kind in YOLO),
        *(("coco", kind) for kind in COCO),
        *(("voc", kind) for kind in VOC),
    ],
)
def test_a_planted_fault_is_found_under_its_id_and_nothing_else(layout, kind, clean, tmp_path):
    root = shutil.copytree(clean[layout], tmp_path / "set")
    {"yolo": YOLO, "coco": COCO, "voc": VOC}[layout][kind](root)
    found = found_in(root / "data.yaml")
    assert found.keys() == {kind} | ({"class-unused"} if kind == "names-differ" else set())
    one = found[kind]
    assert one.count >= 1
    assert one.examples
    assert one.splits
    assert is_refused(root / "data.yaml") == (one.severity is Severity.ERROR)


def is_refused(data: Path) -> bool:
    """Whether training (on a set without val: with val=false) or validation refuses it."""
    has_val = "val:" in data.read_text()
    settings = TrainSettings(data=str(data), model="rtdetr-n.yaml", val=has_val)
    try:
        for split in filter(None, open_splits(settings)):
            for record in split.records:
                read_record_image(record)
        if has_val:
            open_split(load_data(str(data)), "val")
    except DataError:
        return True
    return False


ONE_BY_ONE = {"image-missing", "image-listed-twice", "split-empty", "labels-missing"}
ONE_BY_ONE |= {"val-missing", "boxes-missing", "split-missing", "keypoints-unused"}
ONE_BY_ONE |= {kind for kind in YOLO if kind.startswith("class-")} - {"class-unknown"}
"""Faults that exclude others, or change the same line of data.yaml."""


def plant_all(root: Path) -> set[str]:
    """All faults that go together, and those of ONE_BY_ONE in another way; returns their ids."""
    for kind in YOLO.keys() - ONE_BY_ONE - {"class-unknown"}:
        YOLO[kind](root)
    names(root, "bird", "Dog", "cow", "hen", "emu")
    add(root, "train/2", "".join(f"{at} .9 .9 .1 .1\n" for at in (7, 3, 6)))
    for number in range(1, 11):
        add(root, f"train/{number}", f"3 .9 {number / 12} .1 .1\n5 .1 {number / 12} .1 .1\n")
    add(root, "val/0", "4 .9 .9 .1 .1\n3 .9 .5 .1 .1\n6 .9 .1 .1 .1\n")
    YOLO["class-imbalance"](root)
    change(root / "data.yaml", "images/train/0.jpg]", "images/train/0.jpg, val.txt]")
    (root / "val.txt").write_text("images/val/gone.jpg\nimages/val/0.jpg\n")
    more = {"image-missing", "image-listed-twice"}
    return YOLO.keys() - ONE_BY_ONE | {kind for kind in YOLO if kind[:6] == "class-"} | more


def test_all_faults_at_once_are_found(clean, tmp_path):
    root = shutil.copytree(clean["yolo"], tmp_path / "set")
    planted = plant_all(root)
    assert len(planted) > 30
    assert found_in(root / "data.yaml").keys() == planted
    skipped = check(CheckSettings(data=str(root / "data.yaml"), bad_images="skip"))
    errors = {one.id for one in skipped if one.severity is Severity.ERROR}
    assert errors == set()


@pytest.mark.slow
def test_training_and_validation_take_what_check_passes(clean, tmp_path, capsys):
    """All faults at once that are no errors: two steps and a validation by the real command."""
    root = shutil.copytree(clean["yolo"], tmp_path / "set")
    for kind in YOLO.keys() - ONE_BY_ONE:
        if KINDS[kind].severity is not Severity.ERROR:
            YOLO[kind](root)
    data = f"data={root / 'data.yaml'}"
    assert run(["check", data]) == 0
    size = ["imgsz=64", "batch=16", "workers=0", "device=cpu", "plots=false"]
    run_folder = [f"project={tmp_path}", "name=run"]
    assert run(["train", "model=rtdetr-n.yaml", data, "epochs=1", *size, *run_folder]) == 0
    assert "Warning: box-near-identical (train): 1. " in capsys.readouterr().err
    best = f"model={tmp_path / 'run/weights/best.pt'}"
    assert run(["val", best, data, *size, f"project={tmp_path}"]) == 0
