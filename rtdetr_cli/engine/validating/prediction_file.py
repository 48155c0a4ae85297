"""predictions.json: the detections of a split as COCO results, written by val, read by compare."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np

from rtdetr_cli.core.bounded_text import parse_large_json, show
from rtdetr_cli.core.coco_classes import COCO_CATEGORY_IDS, COCO_NAMES
from rtdetr_cli.core.console import warn
from rtdetr_cli.core.detections import Detections
from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.files import atomic_write
from rtdetr_cli.data.dataset import DetectionDataset, read_text
from rtdetr_cli.evaluation.coco import CocoEvaluator

MAX_BYTES = 8 << 30
"""Limit for a file of detections; COCO's 5,000 images with 300 each take 200 MB."""
_TOO_LARGE = 1e15
"""Limit of a coordinate or score; comparisons with NaN fail as well."""


def write_predictions(
    run_dir: Path, dataset: DetectionDataset, found: list[dict[str, Any]]
) -> None:
    """Write predictions.json: COCO results, and the file name of each image."""
    paths = {record.image_id: record.path for record in dataset.records}
    image_ids, category_ids = written_image_ids(dataset), written_category_ids(dataset)
    if len(set(image_ids.values())) < len(paths):
        warn("predictions.json: images of the same name share an image_id; see file_name")
    rows = [
        {
            **_rounded(row),
            "image_id": image_ids[row["image_id"]],
            "category_id": category_ids[row["category_id"]],
            "file_name": paths[row["image_id"]].name,
        }
        for row in found
    ]
    with atomic_write(run_dir / "predictions.json") as path:
        path.write_text(json.dumps(rows))


def read_predictions(path: Path, dataset: DetectionDataset) -> CocoEvaluator:
    """Read COCO results of a split, as `rtdetr val save_json` or another tool writes them.

    Raises:
        DataError: a file that is not such a list, a row with other ids than those of the split, or
            images that share an id.
    """
    left_out = {_image_id(image) for image in dataset.skipped}
    rows = {at: row for at, row in enumerate(_rows(path)) if row["image_id"] not in left_out}
    number_of: dict[Hashable, int] = {}
    for number, name in written_image_ids(dataset).items():
        if number_of.setdefault(name, number) != number:
            raise DataError(f"{path}: two images of the split share image_id {name}")
    written = written_category_ids(dataset)
    label_of = {written[number]: label for label, number in enumerate(dataset.category_ids)}
    by_image: dict[int, list[list[float]]] = {}
    others = Counter(
        row["category_id"] for row in rows.values() if row["category_id"] not in label_of
    )
    for place, row in rows.items():
        if row["image_id"] not in number_of:
            raise DataError(
                f"{path}: [{place}].image_id is {show(row['image_id'])}, which the split does not "
                "have; give the data and split that the detections are of"
            )
        if row["category_id"] in label_of:
            box = [*row["bbox"], row["score"], label_of[row["category_id"]]]
            by_image.setdefault(number_of[row["image_id"]], []).append(box)
    _report_others(path, others, len(rows))
    evaluator = CocoEvaluator(dataset.ground_truth(), dataset.category_ids)
    for number, boxes in by_image.items():
        evaluator.update(number, _detections(boxes))
    return evaluator


def _report_others(path: Path, others: Counter[int | str], num_rows: int) -> None:
    """Name the categories that the split does not have; if it has none of them, refuse the file."""
    if not others:
        return
    shown = ", ".join(show(category) for category, _ in others.most_common(3))
    if others.total() == num_rows:
        raise DataError(f"{path}: the split has none of its categories ({shown})")
    warn(
        f"{path}: {others.total()} of {num_rows} detections are of categories that the split does "
        f"not have ({shown}); they are left out"
    )


def is_prediction_file(model: str | Path) -> bool:
    """Whether an argument names detections in a file instead of a model."""
    return Path(model).suffix.lower() == ".json"


def written_image_ids(dataset: DetectionDataset) -> dict[int, int | str]:
    """The image_id in the file of each image; those of a COCO json are kept."""
    if dataset.annotations is not None:
        ids = (record.image_id for record in dataset.records)
        return {number: dataset.image_texts.get(number, number) for number in ids}
    return {record.image_id: _image_id(record.path) for record in dataset.records}


def written_category_ids(dataset: DetectionDataset) -> dict[int, int | str]:
    """The category_id in the file of each category id of the ground truth.

    Those of a COCO json are kept; else they are COCO's own for its val2017, else counted from 1;
    the convention of Ultralytics.
    """
    if dataset.annotations is not None:
        return {
            number: dataset.category_texts.get(number, number) for number in dataset.category_ids
        }
    is_coco = {record.path.parent.name for record in dataset.records} == {"val2017"}
    names = dict(zip(dataset.category_ids, dataset.names.values(), strict=True))
    if is_coco and names == COCO_NAMES:
        return dict(enumerate(COCO_CATEGORY_IDS))
    return {number: number + 1 for number in dataset.category_ids}


def _image_id(path: Path) -> int | str:
    """The stem of the file, as a number if it is one; the convention of Ultralytics."""
    return int(path.stem) if path.stem.isdecimal() else path.stem


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """A COCO result to a thousandth of a pixel and a millionth of the score."""
    bbox = [round(value, 3) for value in row["bbox"]]
    return {**row, "bbox": bbox, "score": round(row["score"], 6)}


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, each with an image_id, a category_id, a bbox and a score."""
    text = read_text(path, MAX_BYTES)
    if text is None:
        raise DataError(f"{path}: no such file")
    try:
        rows = parse_large_json(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: broken json, {error.msg}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: is not a list of detections, as `rtdetr val save_json` writes")
    for place, row in enumerate(rows):
        if wrong := _what_is_wrong(row):
            raise DataError(f"{path}: [{place}] {wrong}")
    return rows


def _what_is_wrong(row: object) -> str | None:
    keys = ("image_id", "category_id", "bbox", "score")
    if not isinstance(row, dict) or not all(key in row for key in keys):
        return f"is not a detection with {', '.join(keys)}"
    if not all(isinstance(row[key], int | str) for key in keys[:2]):
        return "has an image_id or category_id that is neither a number nor a text"
    box, score = row["bbox"], row["score"]
    numbers = [*box, score] if isinstance(box, list) and len(box) == 4 else []
    is_right = (type(value) in {int, float} and abs(value) < _TOO_LARGE for value in numbers)
    if not numbers or not all(is_right):
        return f"needs bbox = four finite numbers x, y, w, h and a score, found {show(box)}"
    return None


def _detections(rows: list[list[float]]) -> Detections:
    table = np.array(rows, np.float64)
    corners = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1)
    return Detections(corners, table[:, 4], table[:, 5].astype(np.int64))
