"""Warnings about labels before training."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from rtdetr_cli.data.dataset import DetectionDataset, LabelledBox, make_record
from rtdetr_cli.engine.training.label_warnings import warn_of_labels

GOOD = [LabelledBox(0, [5, 5, 40, 40], place=1), LabelledBox(1, [50, 5, 90, 40], place=2)]


def split(*boxes: LabelledBox, folder: str = "train") -> DetectionDataset:
    path = Path(f"/data/images/{folder}/1.png")
    record = make_record(1, path, (100, 100), list(boxes), f"/data/labels/{folder}/1.txt:")
    return DetectionDataset({0: "cat", 1: "dog"}, [0, 1], [record])


def test_a_good_data_set_is_passed_over_in_silence(capsys):
    splits = {"train": split(*GOOD), "val": split(*GOOD, folder="val")}
    warn_of_labels("my.yaml", splits, (640, 640), 300)
    assert capsys.readouterr().err == ""


def test_a_kind_of_problem_is_one_line_with_its_first_place(capsys):
    twice = [LabelledBox(0, [5, 5, 40, 40.5], place=7), LabelledBox(0, [5, 5, 40.5, 40], place=9)]
    splits = {"train": split(*GOOD, *twice), "val": None}
    warn_of_labels("my.yaml", splits, (640, 640), 300)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("Warning: box-near-identical (train): 3. Boxes of one class nearly ")
    assert "First: /data/labels/train/1.txt:7 (cat, IoU 0.986 with cat at 1)" in first
    assert last == "Warning: `rtdetr check data=my.yaml` lists all"


def test_the_check_of_a_large_data_set_takes_less_than_a_second_per_ten_thousand_images():
    """Measured: 0.05 s."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(2000):
        low = rng.uniform(0, 400, (10, 2))
        corners = np.hstack([low, low + rng.uniform(20, 200, (10, 2))])
        boxes = [LabelledBox(int(rng.integers(2)), one) for one in corners.tolist()]
        records.append(make_record(number, Path(f"/data/{number}.png"), (640, 640), boxes))
    large = DetectionDataset({0: "cat", 1: "dog"}, [0, 1], records)
    start = time.perf_counter()
    warn_of_labels("my.yaml", {"train": large, "val": None}, (640, 640), 300)
    assert time.perf_counter() - start < 1
