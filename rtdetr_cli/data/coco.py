"""COCO json: boxes in pixels, any category ids, crowd regions; also Roboflow's export of it."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from rtdetr_cli.core.bounded_text import parse_large_json
from rtdetr_cli.core.errors import DataError, nearest
from rtdetr_cli.core.image import read_image_size
from rtdetr_cli.data.dataset import DetectionDataset, LabelledBox, Problems, make_record

Json = dict[str, Any]

_NEEDED = {
    "images": ["id", "file_name"],
    "categories": ["id", "name"],
    "annotations": ["image_id", "category_id", "bbox"],
}

OUTSIDE_TOLERANCE_PIXELS = 1.0
"""How far a box may leave the picture: published sets round, and count from 0 or from 1."""


def read_coco(
    json_path: Path, image_folders: list[Path], names: dict[int, str] | None
) -> DetectionDataset:
    """Read a COCO json; its image and category ids stay as they are in the ground truth.

    Args:
        json_path: the annotations.
        image_folders: where the pictures may be; the first folder that has the first one is it.
        names: classes in the order that the model shall have; None takes the json's, by id.

    Raises:
        DataError: broken json, missing pictures, unknown ids, wrong boxes.
    """
    content = _load(json_path)
    categories = _categories(content)
    names, category_ids = _classes(json_path, categories, names)
    problems = Problems()
    class_of = {category_id: index for index, category_id in enumerate(category_ids)}
    boxes_of = _boxes_by_image(content["annotations"], class_of, problems)
    paths = _image_paths(json_path, content["images"], image_folders)
    records = []
    for entry, path in zip(content["images"], paths, strict=True):
        boxes, size_hw = boxes_of.pop(entry["id"], []), _size_hw(entry, path)
        _check_inside(entry["file_name"], boxes, size_hw, problems)
        records.append(make_record(int(entry["id"]), path, size_hw, boxes))
    for image_id in boxes_of:
        problems.error(f"image_id {image_id}", "annotated, but not among the images")
    problems.errors = [f"{json_path}: {error}" for error in problems.errors]
    problems.raise_if_any()
    annotations = [_slim(entry, number) for number, entry in enumerate(content["annotations"], 1)]
    return DetectionDataset(names, category_ids, records, problems.notes(), annotations)


def _load(path: Path) -> Json:
    try:
        content: Json = parse_large_json(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: broken json, {error.msg}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text file") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{path}: is no COCO json, it has no list of {key}")
    for key, fields in _NEEDED.items():
        for number, entry in enumerate(content[key]):
            missing = [name for name in fields if name not in entry]
            if missing:
                raise DataError(f"{path}: {key}[{number}] has no {missing[0]}")
    return content


def _categories(content: Json) -> list[Json]:
    """By id, without the unused super-category that Roboflow puts first."""
    used = {annotation["category_id"] for annotation in content["annotations"]}
    supers = {entry.get("supercategory") for entry in content["categories"]}
    return sorted(
        (
            entry
            for entry in content["categories"]
            if entry["id"] in used or entry["id"] != 0 or entry["name"] not in supers
        ),
        key=lambda entry: entry["id"],
    )


def _classes(
    path: Path, categories: list[Json], names: dict[int, str] | None
) -> tuple[dict[int, str], list[int]]:
    """The names, and the json's category id of each."""
    id_of = {str(entry["name"]): int(entry["id"]) for entry in categories}
    if len(id_of) < len(categories):
        raise DataError(f"{path}: two categories have the same name")
    if names is None:
        names = dict(enumerate(id_of))
    for name in names.values():
        if name not in id_of:
            raise DataError(f"{path}: has no category {name}{nearest(name, id_of)}")
    return names, [id_of[names[index]] for index in range(len(names))]


def _boxes_by_image(
    annotations: list[Json], class_of: dict[int, int], problems: Problems
) -> dict[Any, list[LabelledBox]]:
    """The boxes of each image id."""
    boxes_of = defaultdict(list)
    for number, annotation in enumerate(annotations):
        where = f"annotations[{number}]"
        label = class_of.get(annotation["category_id"])
        box = annotation["bbox"]
        if label is None:
            problems.error(where, f"category_id {annotation['category_id']} is not in categories")
        elif not _is_box(box):
            problems.error(where, f"bbox {str(box)[:60]} is not four finite numbers x, y, w, h")
        elif box[2] <= 0 or box[3] <= 0:
            problems.mend(where, "boxes without area not trained on")
        else:
            left, top, width, height = box
            corners = [left, top, left + width, top + height]
            crowd = bool(annotation.get("iscrowd", 0))
            boxes_of[annotation["image_id"]].append(LabelledBox(label, corners, crowd))
    return boxes_of


def _is_box(box: object) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(value, int | float) and math.isfinite(value) for value in box)
    )


def _image_paths(json_path: Path, images: list[Json], folders: list[Path]) -> list[Path]:
    """Where the pictures are, all in one of the folders."""
    if not images:
        raise DataError(f"{json_path}: lists no images")
    first = str(images[0]["file_name"])
    folder = next((folder for folder in folders if (folder / first).is_file()), None)
    if folder is None:
        looked = ", ".join(str(folder) for folder in folders)
        raise DataError(f"{json_path}: its first picture {first} is in none of {looked}")
    paths = [folder / entry["file_name"] for entry in images]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DataError(
            f"{missing[0]}: no such picture; {json_path.name} lists {len(missing)} such"
        )
    return paths


def _size_hw(entry: Json, path: Path) -> tuple[int, int]:
    if "height" in entry and "width" in entry:
        return int(entry["height"]), int(entry["width"])
    return read_image_size(path)


def _check_inside(
    name: str, boxes: list[LabelledBox], size_hw: tuple[int, int], problems: Problems
) -> None:
    height, width = size_hw
    for box in boxes:
        left, top, right, bottom = box.corners
        if max(-left, -top, right - width, bottom - height) > OUTSIDE_TOLERANCE_PIXELS:
            found = ", ".join(f"{edge:.5g}" for edge in box.corners)
            problems.error(
                name,
                f"box outside the picture of {width}x{height} (left, top, right, bottom = {found})",
            )


def _slim(annotation: Json, number: int) -> Json:
    """What evaluation needs of an annotation; polygons would be most of the memory."""
    box = annotation["bbox"]
    return {
        "id": annotation.get("id", number),
        "image_id": annotation["image_id"],
        "category_id": annotation["category_id"],
        "bbox": box,
        "area": annotation.get("area", box[2] * box[3]),
        "iscrowd": int(annotation.get("iscrowd", 0)),
    }
