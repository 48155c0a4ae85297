"""Checks of files; tests/engine/checking/test_planted.py has them by the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtdetr_cli.core.findings import Finding
from rtdetr_cli.core.image import Pixels
from rtdetr_cli.data.checks.files import check_images, check_label_files
from rtdetr_cli.data.dataset import DetectionDataset, Record
from rtdetr_cli.data.image_cache import decode_record
from rtdetr_cli.data.yolo import read_yolo


def draw(path: Path, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.stem)).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def opened(root: Path, *names: str) -> DetectionDataset:
    """A split of drawn images; each has a label file with one box."""
    images = [draw(root / "images" / name) for name in names]
    for image in images:
        label = root / "labels" / f"{image.stem}.txt"
        label.parent.mkdir(exist_ok=True)
        label.write_text("0 0.5 0.5 0.2 0.2\n")
    return read_yolo(images, {0: "cat"}, "report")


def ids(findings: list[Finding]) -> list[tuple[str, int]]:
    return [(one.id, one.count) for one in findings]


@pytest.mark.parametrize(
    ("name", "kind", "is_usual"),
    [
        ("a.jpg", "JPEG", True),
        ("a.JPEG", "JPEG", True),
        ("a.jfif", "JPEG", True),
        ("a.png", "JPEG", False),
        ("a.jpg", "PNG", False),
        ("a.jpg", "MPO", True),
        ("a.heic", "PNG", True),  # nothing is known of this suffix without a plug-in
    ],
)
def test_suffix_and_format_are_compared(name, kind, is_usual, tmp_path):
    dataset = opened(tmp_path, "b.png")
    path = draw(tmp_path / name, format=kind)
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    dataset.records[:] = read_yolo([path], {0: "cat"}).records
    assert ids(check_images({"train": dataset})[0]) == (
        [] if is_usual else [("image-suffix-differs", 1)]
    )


def test_an_image_of_two_splits_is_decoded_once_and_reported_in_both(tmp_path, monkeypatch):
    dataset = opened(tmp_path, "a.png", "b.png")
    path = dataset.records[0].path
    path.write_bytes(path.read_bytes()[:-400])
    decoded = []

    def counted(record: Record) -> Pixels:
        decoded.append(record.path)
        return decode_record(record)

    monkeypatch.setattr("rtdetr_cli.data.checks.files.decode_record", counted)
    findings, _ = check_images({"train": dataset, "val": dataset})
    assert ids(findings) == [("image-damaged", 1)] * 2
    assert findings[0].examples[0].where == str(path)
    assert "truncated" in findings[0].examples[0].what
    assert findings[0].examples[0].images == ()  # it cannot be shown
    assert len(decoded) == 2


@pytest.mark.parametrize(
    ("name", "text", "is_label"),
    [
        ("gone.txt", "0 0.5 0.5 0.2 0.2\n", True),
        ("gone.txt", "\n\n0 .1 .1 .5 .1 .5 .5\n", True),
        ("classes.txt", "cat\n", False),
        ("train.txt", "images/a.png\n", False),
        ("notes.txt", "", False),
        ("gone.json", "{}", False),
    ],
)
def test_files_beside_labels_are_labels_if_they_begin_with_a_box(name, text, is_label, tmp_path):
    dataset = opened(tmp_path, "a.png")
    (tmp_path / "labels" / name).write_text(text)
    found = check_label_files({"train": dataset, "val": dataset})
    assert ids(found) == ([("label-without-image", 1)] if is_label else [])


def test_labels_of_images_that_are_in_no_list_have_their_image(tmp_path):
    dataset = opened(tmp_path, "a.png", "b.png")
    dataset.records.pop()
    assert check_label_files({"train": dataset}) == []


def test_an_image_with_a_rejected_label_is_no_background(tmp_path):
    images = [record.path for record in opened(tmp_path, "a.png", "b.png").records]
    (tmp_path / "labels" / "a.txt").write_text("0 0.5\n")
    dataset = read_yolo(images, {0: "cat"}, "report")
    assert [len(record.labels) for record in dataset.records] == [0, 1]
    assert check_label_files({"train": dataset}) == []
    (tmp_path / "labels" / "a.txt").write_text("")
    empty = read_yolo(images, {0: "cat"}, "report")
    assert ids(check_label_files({"train": empty})) == [("image-without-boxes", 1)]
