"""Error types against tidecv 1.0.1 on the same detections.

The numbers are count and cost in points by `run_peer` of tests/benchmarks/error_types.py, which
removes three differences of definition and says which.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from rtdetr_cli.core.detections import Detections
from rtdetr_cli.evaluation.coco import CocoEvaluator
from rtdetr_cli.evaluation.errors import KINDS, ErrorCost

OF_PLANTED = {
    "Cls": (7, 14.920409151836303),
    "Loc": (5, 8.77614271990938),
    "Both": (7, 2.7424190269422084),
    "Dupe": (7, 1.5636521237164374),
    "Bkg": (6, 1.7571639080237205),
    "Miss": (19, 13.485910652326979),
}
OF_COCOAPI = {
    "Cls": (83, 16.75747826523596),
    "Loc": (1, 0.24988213107025103),
    "Both": (0, 0.0),
    "Dupe": (1, 0.020599225914494923),
    "Bkg": (0, 0.0),
    "Miss": (97, 8.22873572044746),
}
"""Of the fixture of cocoapi, with scores made different by 1e-9."""


def planted() -> tuple[dict[str, Any], np.ndarray]:
    """12 images, 3 classes: found boxes and every type of error, all scores different."""
    rng = np.random.default_rng(5)
    boxes, rows = [], []
    for image in range(1, 13):
        for place in range(6):
            label = int(rng.integers(1, 4))
            box = np.array([place * 100.0, 0, *rng.uniform(30, 60, 2)])
            boxes.append({"image_id": image, "category_id": label, "bbox": box.tolist()})
            far, other = box + np.array([90, 60, 0, 0]), label % 3 + 1
            near, shifted = box + np.array([2, 1, 0, 0]), box + 0.55 * box[2] * np.eye(4)[0]
            found = {
                0: [(near, label)],
                1: [(near, label), (box, label)],
                2: [(shifted, label)],
                3: [(near, other)],
                4: [(shifted, other)],
                5: [(far, label)],
                6: [],
            }[int(rng.choice(7, p=[0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]))]
            rows += [[image, *place_of, rng.random(), number] for place_of, number in found]
    annotations = [
        {"id": number, "area": box["bbox"][2] * box["bbox"][3], "iscrowd": 0, **box}
        for number, box in enumerate(boxes, start=1)
    ]
    categories = [{"id": number, "name": f"class {number}"} for number in (1, 2, 3)]
    images = [{"id": image} for image in range(1, 13)]
    return {"images": images, "annotations": annotations, "categories": categories}, np.array(rows)


def error_costs(truth: dict[str, Any], rows: np.ndarray) -> list[ErrorCost]:
    """Of rows (image id, x, y, w, h, score, category id)."""
    category_ids = [category["id"] for category in truth["categories"]]
    evaluator = CocoEvaluator(truth, category_ids)
    for image in np.unique(rows[:, 0]).astype(int):
        mine = torch.from_numpy(rows[rows[:, 0] == image])
        corners = torch.cat([mine[:, 1:3], mine[:, 1:3] + mine[:, 3:5]], dim=1)
        labels = torch.tensor([category_ids.index(int(number)) for number in mine[:, 6]])
        evaluator.update(int(image), Detections(corners, mine[:, 5], labels))
    return evaluator.error_costs()


def check(found: list[ErrorCost], expected: dict[str, tuple[int, float]]) -> None:
    assert [one.count for one in found] == [expected[name][0] for name in KINDS]
    costs = [expected[name][1] / 100 for name in KINDS]
    assert [one.cost for one in found] == pytest.approx(costs, abs=1e-12)


def test_counts_and_costs_are_those_of_tidecv():
    found = error_costs(*planted())
    check(found, OF_PLANTED)
    assert found[3].kind.startswith("duplicate")


def test_counts_and_costs_of_real_boxes_are_those_of_tidecv(shared_data):
    folder = shared_data / "eval_fixtures" / "cocoapi"
    truth = json.loads((folder / "instances_val2014_100.json").read_text())
    results = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    rows = [[row["image_id"], *row["bbox"], row["score"], row["category_id"]] for row in results]
    table = np.array(rows)
    table[:, 5] -= 1e-9 * np.arange(len(table))
    check(error_costs(truth, table), OF_COCOAPI)
