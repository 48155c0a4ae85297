"""COCO json: values exchanged, dropped, nested or the text cut, read as a split and scored."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

from PIL import Image

from rtdetr_cli.core.console import result_json
from rtdetr_cli.data.selection import merge_classes
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.evaluation.coco import CocoEvaluator

DIGITS = "9" * 5000
DEPTH = 100_000
ODD = (
    *(None, True, "", "x", "7", "\x1b[31m", "a\0b", "../" * 2000, "\udcff", [], {}, [[]], {"a": 1}),
    *(-1, 0, 0.5, 1e30, 10**400, 2**63, float("nan"), float("inf"), "x" * 10_000),
    *([1, 2], [1, 2, 3, "4"], [1, 2, None, 4], [1, 2, 10**400, 4], [1e308] * 4, [-5, -5, 1e9, 1e9]),
)
BROKEN = ("", "[" * DEPTH, '{"a":' * DEPTH, DIGITS, f"1e{DIGITS}", '"\\ud800"', "NaN", "\0", "{")


def case(rng: random.Random, folder: Path) -> None:
    """Read one damaged file as `data=` would, and what val and check do with it."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (60, 40)).save(folder / name)
    values = _valid()
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _mutate(rng, values)
    text = json.dumps(values)
    if rng.random() < 0.25:
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(BROKEN) + text[at + rng.randrange(3) :]
    path = folder / "annotations.json"
    path.write_bytes(text.encode(rng.choice(("utf-8", "utf-8", "utf-16")), "surrogatepass"))
    dataset = open_split(load_data(path), "train")
    result_json(json.dumps(list(dataset.names.values()), ensure_ascii=False))
    for split in (dataset, merge_classes(dataset)):
        CocoEvaluator(split.ground_truth(), split.category_ids).compute()


def _valid() -> dict[str, Any]:
    return {
        "info": {"year": 2026},
        "images": [
            {"id": 1, "file_name": "a.png", "height": 40, "width": 60},
            {"id": 2, "file_name": "b.png"},
        ],
        "categories": [
            {"id": 3, "name": "cat", "supercategory": "pet"},
            {"id": 7, "name": "dog"},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 30, 20], "area": 600},
            {"id": 2, "image_id": 2, "category_id": 7, "bbox": [5.5, 2, 3, 20], "iscrowd": 1},
            {"image_id": 2, "category_id": 3, "bbox": [0, 0, 0, 4]},
        ],
    }


def _mutate(rng: random.Random, values: Any) -> None:
    keys = list(values) if isinstance(values, dict) else list(range(len(values)))
    if not keys:
        return
    key = rng.choice(keys)
    if isinstance(values[key], dict | list) and values[key] and rng.random() < 0.9:
        _mutate(rng, values[key])
    elif rng.random() < 0.2:
        del values[key]
    elif rng.random() < 0.1:
        values[key] = [copy.deepcopy(values[key]) for _ in range(3)]
    else:
        values[key] = copy.deepcopy(rng.choice(ODD))
