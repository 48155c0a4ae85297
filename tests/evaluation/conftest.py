"""Splits with every awkward case, and pycocotools as the oracle."""

from __future__ import annotations

import contextlib
import copy
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rtdetr_cli.core.detections import Detections
from rtdetr_cli.evaluation.coco import CocoEvaluator

CATEGORY_IDS = [7, 3, 90]
"""Not in order and with gaps, as in COCO."""


@dataclass
class Split:
    """Ground truth and what was found, image id to detections."""

    ground_truth: dict[str, Any]
    category_ids: list[int]
    detections: dict[int, Detections]

    def evaluator(self) -> CocoEvaluator:
        evaluator = CocoEvaluator(self.ground_truth, self.category_ids)
        for image_id, detections in self.detections.items():
            evaluator.update(image_id, detections)
        return evaluator


def run_pycocotools(ground_truth: dict[str, Any], results: list[dict[str, Any]]) -> COCOeval:
    """evaluate, accumulate and summarize by pycocotools itself."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(ground_truth)
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run


def random_split(seed: int) -> Split:
    """Crowds, tied scores, empty images, zero-size boxes, more than 100 detections of a class."""
    rng = np.random.default_rng(seed)
    images = [{"id": 5 * number} for number in range(6)]
    annotations: list[dict[str, Any]] = []
    for image in images[1:]:
        for _ in range(rng.integers(0, 9)):
            box = np.concatenate([rng.uniform(0, 150, 2), rng.uniform(0, 120, 2)]).round(1)
            box[2] *= rng.random() > 0.05
            area = float(box[2] * box[3] * rng.choice([1.0, 0.6]))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": int(rng.choice(CATEGORY_IDS)),
                    "bbox": box.tolist(),
                    "area": area,
                    "iscrowd": int(rng.random() < 0.2),
                }
            )
    detections = {}
    for image in images[:-1]:
        rows = [_clutter(rng) for _ in range(150 if image["id"] == 10 else 3)]
        for box in annotations:
            if box["image_id"] == image["id"]:
                rows += [_near(box, rng) for _ in range(rng.integers(0, 4))]
        table = torch.tensor(np.array(rows), dtype=torch.float32)
        labels = table[:, 5].to(torch.int64)
        detections[image["id"]] = Detections(table[:, :4], table[:, 4], labels)
    categories = [{"id": number, "name": f"class {number}"} for number in CATEGORY_IDS]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    return Split(truth, CATEGORY_IDS, detections)


def _clutter(rng: np.random.Generator) -> list[float]:
    x, y, w, h = *rng.uniform(0, 150, 2), *rng.uniform(1, 90, 2)
    return [x, y, x + w, y + h, round(rng.random() / 2, 2), 0]


def _near(box: dict[str, Any], rng: np.random.Generator) -> list[float]:
    x, y, w, h = np.array(box["bbox"]) + rng.normal(0, 3, 4) * (rng.random() < 0.8)
    label = CATEGORY_IDS.index(box["category_id"]) if rng.random() < 0.8 else 1
    return [x, y, x + max(w, 0), y + max(h, 0), round(rng.random(), 1), label]


@pytest.fixture(params=range(6))
def split(request: pytest.FixtureRequest) -> Split:
    return random_split(request.param)


@pytest.fixture
def make_split():
    """A function: boxes_xywh and found rows (x, y, w, h, score, label) of one image to a Split."""

    def make(boxes: list[list[float]], rows: list[list[float]], **more: Any) -> Split:
        truth = {
            "images": [{"id": 1}],
            "annotations": [
                {"id": number, "image_id": 1, "category_id": int(box[4]), "bbox": box[:4]}
                for number, box in enumerate(boxes, start=1)
            ],
            "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
        }
        for annotation, crowd in zip(truth["annotations"], more.get("crowd", []), strict=False):
            annotation["iscrowd"] = crowd
        table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
        corners = torch.cat([table[:, :2], table[:, :2] + table[:, 2:4]], dim=1)
        found = Detections(corners, table[:, 4], table[:, 5].to(torch.int64))
        return Split(truth, [0, 1], {1: found})

    return make


@pytest.fixture
def pycocotools_run():
    return run_pycocotools
