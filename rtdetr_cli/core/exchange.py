"""Detections in the formats of other programs: COCO results, and supervision's Detections."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from rtdetr_cli.core.boxes import Boxes
from rtdetr_cli.core.errors import BackendError, UsageError


def image_id(stem: str) -> int | str:
    """The COCO id of an image without one: its stem, as a number if it is one."""
    return int(stem) if stem.isdecimal() else stem


def coco_results(
    boxes: Boxes, image_id: int | str, category_ids: Mapping[int, int]
) -> list[dict[str, Any]]:
    """COCO results (cocodataset.org/#format-results), one per box, with track_id if it has one.

    Args:
        boxes: of an image.
        image_id: of it.
        category_ids: of each class index.

    Raises:
        UsageError: a class has no category id.
    """
    found = boxes.numpy()
    ids = [None] * len(found) if found.id is None else found.id.tolist()
    rows: list[dict[str, Any]] = []
    for corners, score, label, track in zip(
        found.xyxy.tolist(), found.conf.tolist(), found.cls.tolist(), ids, strict=True
    ):
        if int(label) not in category_ids:
            raise UsageError(f"category_ids has no id for class {int(label)}")
        x1, y1, x2, y2 = corners
        row = {
            "image_id": image_id,
            "category_id": category_ids[int(label)],
            "bbox": [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(score, 6),
        }
        rows.append(row if track is None else {**row, "track_id": int(track)})
    return rows


def supervision_detections(boxes: Boxes, names: Mapping[int, str]) -> Any:  # noqa: ANN401
    """The boxes as `supervision.Detections` (github.com/roboflow/supervision).

    Args:
        boxes: of an image.
        names: of each class index; the names of the boxes are in `data["class_name"]`.

    Raises:
        BackendError: supervision is not installed.
    """
    try:
        supervision = import_module("supervision")
    except ModuleNotFoundError as error:
        if error.name != "supervision":
            raise
        raise BackendError("to_supervision() needs supervision: pip install supervision") from None
    found = boxes.numpy()
    labels = np.asarray(found.cls).astype(int)
    return supervision.Detections(
        xyxy=np.asarray(found.xyxy, np.float32),
        confidence=np.asarray(found.conf, np.float32),
        class_id=labels,
        tracker_id=None if found.id is None else np.asarray(found.id).astype(int),
        data={"class_name": np.array([names.get(int(one), str(one)) for one in labels], str)},
    )
