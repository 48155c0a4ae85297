"""`rtdetr check fix=`: the copy is read again by the real command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtdetr_cli.cli.main import run

CAT, DOG = "0 0.3 0.3 0.4 0.4\n", "1 0.7 0.7 0.4 0.4\n"
FAULTS = {
    "copy": (0, "", "identical to"),
    "leak": (100, CAT, "of val"),
    "nearly": (101, CAT, "looks like"),
    "clipped": (20, "0 0.95 0.5 0.2 0.2\n", "clipped"),
    "twice": (21, CAT + CAT, "listed more than once"),
    "alike": (22, CAT + "0 0.3 0.301 0.4 0.4\n", "with another one"),
    "flat": (23, CAT + "1 0.5 0.5 0 0.1\n", "without area"),
    "polygon": (24, "0 0.1 0.1 0.5 0.1 0.5 0.5\n", "bounding box"),
    "class": (25, "7 0.5 0.5 0.2 0.2\n", "out of range"),
    "outside": (26, CAT + "0 3 3 0.2 0.2\n", "outside"),
    "cut": (27, CAT, "cannot be decoded"),
}
"""Seed of the image, labels, and what the list of changes says."""


def draw(path: Path, seed: int, quality: int = 95) -> None:
    colors = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(colors).resize((80, 60), Image.Resampling.BICUBIC).save(path, quality=quality)


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """Six good images to train on and four to validate, and an image with each fault."""
    root = tmp_path / "source"
    seeds = {f"train/{n}": n for n in range(6)} | {f"val/{n}": 100 + n for n in range(4)}
    for name, seed in seeds.items():
        draw(root / "images" / f"{name}.jpg", seed)
        label(root, name, CAT + DOG)
    for name, (seed, rows, _) in FAULTS.items():
        draw(root / "images" / "train" / f"{name}.jpg", seed, 60 if name == "nearly" else 95)
        label(root, f"train/{name}", rows)
    cut = root / "images" / "train" / "cut.jpg"
    cut.write_bytes(cut.read_bytes()[:-300])
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    return root / "data.yaml"


def label(root: Path, name: str, rows: str) -> None:
    path = root / "labels" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(rows)


def check(capsys, *arguments: str, code: int = 0) -> dict[str, dict]:
    """The JSON of the command, its findings by id."""
    capsys.readouterr()
    assert run(["check", *arguments, "json"]) == code
    printed = json.loads(capsys.readouterr().out)
    return printed | {"findings": {one["id"]: one for one in printed["findings"]}}


def test_a_cleaned_copy_has_no_errors_and_what_changed_is_listed(faulty, tmp_path, capsys):
    before = {path: path.read_bytes() for path in faulty.parent.rglob("*.*")}
    out = tmp_path / "clean"
    found = check(capsys, f"data={faulty}", f"fix={out}")
    assert {"class-unknown", "image-damaged", "image-leaked", "image-identical"} <= set(
        found["findings"]
    )
    again = check(capsys, f"data={out}")
    assert (again["errors"], again["warnings"]) == (0, 0)
    assert set(again["findings"]) == {"class-rare"}  # 6 + 5 cats and 6 dogs
    names = [path.name for path in sorted((out / "images" / "train").iterdir())]
    kept = ["alike", "clipped", "flat", "polygon", "twice"]
    assert names == [*(f"{n}.jpg" for n in range(6)), *(f"{name}.jpg" for name in kept)]
    assert (out / "labels/train/alike.txt").read_text() == "0 0.300000 0.300000 0.400000 0.400000\n"
    changes = (out / "changes.txt").read_text().splitlines()
    for name, (_, _, reason) in FAULTS.items():
        assert any(name in line and reason in line for line in changes), name
    assert not [line for line in changes if not any(name in line for name in FAULTS)]
    assert before == {path: path.read_bytes() for path in faulty.parent.rglob("*.*")}


@pytest.mark.parametrize("format", ["coco", "voc", "yolo"])
def test_the_copy_is_in_the_format_of_the_source(format, faulty, tmp_path, capsys):
    source, out = tmp_path / format, tmp_path / "clean"
    arguments = [f"data={faulty}", f"format={format}", f"out={source}", "bad_images=skip"]
    assert run(["convert", *arguments]) == 0
    first = check(capsys, f"data={source}", code=0)
    assert {"image-leaked", "image-leaked-nearly", "image-identical"} <= set(first["findings"])
    found = check(capsys, f"data={source}", f"fix={out}", "images=link")
    assert found["splits"] == first["splits"]
    assert set(check(capsys, f"data={out}")["findings"]) == {"class-rare"}
    written = {path.suffix for path in out.rglob("*") if not path.is_symlink()}
    assert {"coco": ".json", "voc": ".xml", "yolo": ".txt"}[format] in written
    assert ".jpg" not in written


def test_a_json_that_is_train_and_val_stays_one(faulty, tmp_path, capsys):
    source, out = tmp_path / "coco", tmp_path / "clean"
    arguments = [f"data={faulty}", "format=coco", f"out={source}", "bad_images=skip"]
    assert run(["convert", *arguments]) == 0
    json_path = source / "annotations" / "instances_train.json"
    check(capsys, f"data={json_path}", f"fix={out}")
    counts = check(capsys, f"data={out}")["splits"]
    assert counts["train"] == counts["val"]
    assert counts["train"]["images"] == 13  # all but the copy


def test_boxes_of_a_file_with_two_entries_are_joined(tmp_path, capsys):
    for n in range(2):
        draw(tmp_path / "data" / f"{n}.jpg", n)
    boxes = [[5, 5, 20, 20], [40, 30, 20, 20], [5, 5, 20, 20]]
    content = {
        "images": [{"id": n, "file_name": f"{n // 2}.jpg"} for n in range(3)],
        "annotations": [
            {"id": n + 1, "image_id": n, "category_id": 1, "bbox": box}
            for n, box in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "data" / "train.json").write_text(json.dumps(content))
    check(capsys, f"data={tmp_path / 'data/train.json'}", f"fix={tmp_path / 'clean'}")
    written = json.loads((tmp_path / "clean/annotations/instances_train.json").read_text())
    assert [one["file_name"] for one in written["images"]] == ["0.jpg", "1.jpg"]
    assert [one["bbox"] for one in written["annotations"] if one["image_id"] == 0] == boxes[:2]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fix={root}/new"], "is in the folder of the data set"),
        (["fix={root}/images"], "is not an empty folder"),
        (["images=link"], "images has no effect without fix="),
    ],
)
def test_a_copy_that_would_harm_is_refused_before_anything_is_read(
    arguments, sentence, faulty, capsys
):
    given = [argument.format(root=faulty.parent) for argument in arguments]
    assert run(["check", f"data={faulty}", *given]) == 2
    assert sentence in capsys.readouterr().err


def test_a_file_that_is_wrong_as_a_whole_is_not_copied(faulty, tmp_path, capsys):
    (faulty.parent / "train.json").write_text("{}")
    faulty.write_text("train: train.json\nval: images/val\nnames: [cat, dog]\n")
    assert run(["check", f"data={faulty}", f"fix={tmp_path / 'clean'}"]) == 3
    assert "is not a COCO json" in capsys.readouterr().err
    assert not (tmp_path / "clean").exists()
