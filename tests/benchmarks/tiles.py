"""AP of large images with and without tiles: mosaics of small images, whose truth is known.

    python tests/benchmarks/tiles.py --model best.pt --data bccd --imgsz 320

Every N x N images of the val split form one mosaic. Sizes of boxes are those in a mosaic shrunk to
one image, so that "small" is what a detector of single images would call small there. AP is
pycocotools' with as many detections of a class as there are.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import time
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rtdetr_cli import RTDETR
from rtdetr_cli.core.console import result
from rtdetr_cli.core.structures import Detections
from rtdetr_cli.engine import predict as engine
from rtdetr_cli.engine.predicting.merging import merge_views

MOST = 5000


def make_mosaics(data: Path, side: int):
    """Mosaics (BGR) and their truth as COCO json with boxes in pixels of the mosaic."""
    truth = json.loads((data / "annotations" / "instances_val.json").read_text())
    boxes = {}
    for box in truth["annotations"]:
        boxes.setdefault(box["image_id"], []).append(box)
    mosaics, images, annotations = [], [], []
    per = side * side
    for start in range(0, len(truth["images"]) - per + 1, per):
        rows, number = [], len(mosaics) + 1
        for index, image in enumerate(truth["images"][start : start + per]):
            pixels = cv2.imread(str(data / "images" / "val" / Path(image["file_name"]).name))
            height, width = pixels.shape[:2]
            rows.append(pixels)
            top, left = index // side * height, index % side * width
            for box in boxes.get(image["id"], []):
                x, y, w, h = box["bbox"]
                moved = {**box, "bbox": [x + left, y + top, w, h], "image_id": number}
                annotations.append({**moved, "id": len(annotations) + 1})
        lines = [np.hstack(rows[row * side : (row + 1) * side]) for row in range(side)]
        mosaics.append(np.vstack(lines))
        images.append({"id": number, "width": width * side, "height": height * side})
    return mosaics, {**truth, "images": images, "annotations": annotations}


def shrunk(rows: list[dict], side: int) -> list[dict]:
    """Boxes in pixels of a mosaic shrunk to the size of one image."""
    made = []
    for row in rows:
        x, y, w, h = (value / side for value in row["bbox"])
        made.append({**row, "bbox": [x, y, w, h], "area": w * h})
    return made


def average_precision(truth: dict, rows: list[dict], side: int) -> dict[str, float]:
    """AP, AP50, AP of small and medium boxes, and of each class."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {**truth, "annotations": shrunk(truth["annotations"], side)}
        coco.createIndex()
        scorer = COCOeval(coco, coco.loadRes(shrunk(rows, side)), "bbox")
        scorer.params.maxDets = [1, 10, MOST]
        scorer.evaluate()
        scorer.accumulate()
    precision = scorer.eval["precision"][..., -1]  # IoU, recall, class, area
    precision = np.where(precision < 0, np.nan, precision)
    found = {"AP": precision[:, :, :, 0], "AP50": precision[0, :, :, 0]}
    found |= {"AP small": precision[:, :, :, 1], "AP medium": precision[:, :, :, 2]}
    for index, category in enumerate(truth["categories"]):
        found[f"AP {category['name']}"] = precision[:, :, index, 0]
    return {name: float(np.nanmean(values)) for name, values in found.items()}


def unmerged(views, found):
    """All detections of all views."""
    together = [torch.cat(parts) for parts in zip(*map(columns, found), strict=True)]
    return best_first(Detections(*together))


def columns(found: Detections):
    return found.boxes_xyxy, found.scores, found.labels


def best_first(found: Detections) -> Detections:
    return found.keep(found.scores.argsort(descending=True, stable=True))


MERGES = {"seams": merge_views, "none": unmerged}


def measure(model, mosaics, truth, side, keys, merge) -> dict[str, float]:
    """AP, detections above 0.5 and seconds per mosaic."""
    ids = [category["id"] for category in truth["categories"]]
    rows, sure = [], 0
    begin = time.perf_counter()
    with patch.object(engine, "merge_views", MERGES[merge]):
        for number, mosaic in enumerate(mosaics, start=1):
            boxes = model(mosaic, conf=0.001, max_det=MOST, verbose=False, **keys)[0].boxes.data
            for x1, y1, x2, y2, score, label in boxes.tolist():
                sure += score > 0.5
                box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
                rows.append({**box, "image_id": number, "category_id": ids[int(label)]})
    seconds = (time.perf_counter() - begin) / len(mosaics)
    found = average_precision(truth, rows, side)
    return {**found, "above 0.5": sure / len(mosaics), "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--side", type=int, default=4, help="images per side of a mosaic")
    parser.add_argument("--rect", action="store_true")
    parser.add_argument("--most", type=int, default=100, help="number of mosaics")
    parser.add_argument("--tiles", nargs="*", default=["4x4"])
    given = parser.parse_args()
    model = RTDETR(given.model)
    mosaics, truth = make_mosaics(given.data, given.side)
    mosaics = mosaics[: given.most]
    kept = {image["id"] for image in truth["images"][: given.most]}
    truth["images"] = truth["images"][: given.most]
    truth["annotations"] = [box for box in truth["annotations"] if box["image_id"] in kept]
    result(f"{len(mosaics)} mosaics, {len(truth['annotations']) / len(mosaics):.1f} boxes each")
    own = {"imgsz": given.imgsz, "rect": given.rect}
    runs = [({}, "seams"), *(({"tiles": one}, merge) for one in given.tiles for merge in MERGES)]
    runs = [({**keys, "nms": nms}, merge) for keys, merge in runs for nms in (None, 0.5)]
    for index, (keys, merge) in enumerate(runs):
        row = measure(model, mosaics, truth, given.side, own | keys, merge)
        name = ", ".join(f"{key}={value}" for key, value in keys.items())
        if not index:
            result(f"| | merge | {' | '.join(row)} |")
        cells = " | ".join(
            f"{value:.4f}" if value < 2 else f"{value:.1f}" for value in row.values()
        )
        result(f"| {name} | {merge} | {cells} |")


if __name__ == "__main__":
    main()
