"""COCO json: boxes in pixels, any category ids, crowd regions; also as exported by Roboflow."""

from __future__ import annotations

import json
import re
import reprlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rtdetr_cli.core.bounded_text import parse_large_json
from rtdetr_cli.core.errors import DataError, nearest
from rtdetr_cli.core.image import read_image_size
from rtdetr_cli.data.dataset import (
    DetectionDataset,
    LabelledBox,
    Problems,
    make_record,
    read_text,
)

Json = dict[str, Any]

MAX_JSON_BYTES = 8 << 30

_NEEDED = {
    "images": ["id", "file_name"],
    "categories": ["id", "name"],
    "annotations": ["image_id", "category_id", "bbox"],
}

_TOO_LARGE = 2**53
"""Limit of exact integers in float64; comparisons with NaN fail as well."""


def _is_number(value: Any) -> bool:  # noqa: ANN401  (any JSON value)
    return isinstance(value, int | float) and abs(value) < _TOO_LARGE


def _is_id(value: Any) -> bool:  # noqa: ANN401
    return _is_number(value) and value >= 0 and value == int(value) and not isinstance(value, bool)


def _is_name(value: Any) -> bool:  # noqa: ANN401
    return _is_id(value) or (isinstance(value, str) and not _LONE_SURROGATE.search(value))


_LONE_SURROGATE = re.compile("[\\ud800-\\udfff]")
_ID = (_is_id, "a whole number >= 0")
_SIZE = (lambda value: _is_id(value) and 0 < value <= 10**6, "1 to 1000000 pixels")
_FIELDS: dict[str, dict[str, tuple[Callable[[Any], bool], str]]] = {
    "images": {
        "id": _ID,
        "file_name": (lambda value: isinstance(value, str), "a text"),
        "height": _SIZE,
        "width": _SIZE,
    },
    "categories": {"id": _ID, "name": (_is_name, "a text")},
    "annotations": {
        "id": _ID,
        "image_id": _ID,
        "category_id": _ID,
        "iscrowd": (_is_number, "0 or 1"),
        "area": (_is_number, "a number"),
    },
}

OUTSIDE_TOLERANCE_PIXELS = 1.0
"""Tolerated overhang of a box: published data sets round, and count from 0 or from 1."""


def read_coco(
    json_path: Path, image_folders: list[Path], names: dict[int, str] | None
) -> DetectionDataset:
    """Read a COCO json; the ground truth keeps its image and category ids.

    Args:
        json_path: the annotations.
        image_folders: candidate folders; the first that contains the first image is used.
        names: classes in the order of the model; None: those of the json, by id.

    Raises:
        DataError: broken json, missing images, unknown ids, invalid boxes.
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
    problems.raise_if_any(f"{json_path}: ")
    annotations = [_slim(entry, number) for number, entry in enumerate(content["annotations"], 1)]
    return DetectionDataset(names, category_ids, records, problems.notes(), annotations)


def _load(path: Path) -> Json:
    try:
        content: Json = parse_large_json(read_text(path, MAX_JSON_BYTES) or "")
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: broken json, {error.msg}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{path}: is not a COCO json, it has no list of {key}")
    for key in _FIELDS:
        for number, entry in enumerate(content[key]):
            if wrong := _what_is_wrong(key, entry):
                raise DataError(f"{path}: {key}[{number}]{wrong}")
    return content


def _what_is_wrong(key: str, entry: object) -> str | None:
    """Explain, as the end of a sentence, what is wrong with an entry; bbox is checked later."""
    if not isinstance(entry, dict):
        return " is not a mapping of keys"
    for name in _NEEDED[key]:
        if name not in entry:
            return f" has no {name}"
    for name, (is_right, noun) in _FIELDS[key].items():
        if name in entry and not is_right(entry[name]):
            return f".{name} is {reprlib.repr(entry[name])}, expected {noun}"
    return None


def _categories(content: Json) -> list[Json]:
    """Categories by id, without the unused supercategory that Roboflow adds first."""
    used = {annotation["category_id"] for annotation in content["annotations"]}
    named = (entry.get("supercategory") for entry in content["categories"])
    supers = {name for name in named if isinstance(name, str)}
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
    """Class names, and the category id of each."""
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
    """Boxes by image id."""
    boxes_of = defaultdict(list)
    for number, annotation in enumerate(annotations):
        where = f"annotations[{number}]"
        label = class_of.get(annotation["category_id"])
        box = annotation["bbox"]
        if label is None:
            problems.error(where, f"category_id {annotation['category_id']} is not in categories")
        elif not _is_box(box):
            problems.error(where, f"bbox {reprlib.repr(box)} is not four finite numbers x, y, w, h")
        elif box[2] <= 0 or box[3] <= 0:
            problems.mend(where, "boxes without area ignored in training")
        else:
            left, top, width, height = box
            corners = [left, top, left + width, top + height]
            crowd = bool(annotation.get("iscrowd", 0))
            boxes_of[annotation["image_id"]].append(LabelledBox(label, corners, crowd))
    return boxes_of


def _is_box(box: object) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))


def _image_paths(json_path: Path, images: list[Json], folders: list[Path]) -> list[Path]:
    """Paths of the images, all in one of the folders."""
    if not images:
        raise DataError(f"{json_path}: lists no images")
    first = str(images[0]["file_name"])
    folder = next((folder for folder in folders if (folder / first).is_file()), None)
    if folder is None:
        looked = ", ".join(str(folder) for folder in folders)
        raise DataError(f"{json_path}: its first image {first} is in none of {looked}")
    paths = [folder / entry["file_name"] for entry in images]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DataError(f"{missing[0]}: no such image; {json_path.name} lists {len(missing)} such")
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
                f"box outside the image of {width}x{height} (left, top, right, bottom = {found})",
            )


def _slim(annotation: Json, number: int) -> Json:
    """The fields needed for evaluation; polygons would take most of the memory."""
    box = annotation["bbox"]
    return {
        "id": annotation.get("id", number),
        "image_id": annotation["image_id"],
        "category_id": annotation["category_id"],
        "bbox": box,
        "area": annotation.get("area", box[2] * box[3]),
        "iscrowd": int(annotation.get("iscrowd", 0)),
    }
