"""Parse the entries of a COCO json as tools write them; coco.py makes the data set.

Ids may be numbers or texts anywhere ("7" and 7.0 are 7). An optional key that is null or of a
wrong type is as if it were absent.
"""

from __future__ import annotations

import json
import re
import reprlib
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from rtdetr_cli.core.bounded_text import parse_large_json
from rtdetr_cli.data.dataset import read_text
from rtdetr_cli.data.problems import LabelError, unusable

Json = dict[str, Any]
Id = int | str

MAX_JSON_BYTES = 8 << 30
_TOO_LARGE = 2**53
"""Limit of exact integers in float64; comparisons with NaN fail as well."""
_WHOLE = re.compile(r"(0|-?[1-9][0-9]{0,30})(\.0*)?")
_LONE_SURROGATE = re.compile("[\\ud800-\\udfff]")
_MAX_SIDE = 10**6


class ImageEntry(NamedTuple):
    """An image as listed: id, file name with `/`, and (height, width) if stated."""

    id: Id
    file_name: str
    size_hw: tuple[int, int] | None


class Category(NamedTuple):
    """A category as listed."""

    id: Id
    name: str
    parent: str | None


class Annotation(NamedTuple):
    """An annotation as listed; bbox (x, y, w, h) in pixels; id None if it has no usable one."""

    id: int | None
    image_id: Id
    category_id: Id
    bbox: list[float]
    area: float | None
    iscrowd: bool


class ClassList(NamedTuple):
    """The categories of a json, and the ids of those that annotations use."""

    categories: list[Category]
    used: set[Id]


def load_json(path: Path) -> Json:
    """Read a json with the three lists of COCO; the last one is kept until `forget_json`.

    Raises:
        DataError: broken json, or another kind of json.
    """
    return _load(path, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=1)
def _load(path: Path, changed_ns: int) -> Json:
    """As load_json; `changed_ns` is a part of the key alone."""
    try:
        content: Json = parse_large_json(read_text(path, MAX_JSON_BYTES) or "")
    except json.JSONDecodeError as error:
        raise unusable(
            "json-broken", f"{path}:{error.lineno}", f"broken json, {error.msg}"
        ) from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise unusable("json-broken", str(path), f"is not a COCO json, it has no list of {key}")
    return content


forget_json = _load.cache_clear
"""Free the memory of the last json."""


def read_class_list(path: Path) -> ClassList:
    """Read the classes of a json; entries that are wrong are passed over.

    Raises:
        DataError: broken json, or another kind of json.
    """
    return _class_list(path, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=64)
def _class_list(path: Path, changed_ns: int) -> ClassList:
    content = _load(path, changed_ns)
    categories = []
    for entry in content["categories"]:
        try:
            categories.append(parse_category(entry))
        except LabelError:
            continue
    entries = (entry for entry in content["annotations"] if isinstance(entry, dict))
    used = {as_id(entry.get("category_id")) for entry in entries}
    return ClassList(categories, {id_ for id_ in used if id_ is not None})


def parse_image(entry: object) -> ImageEntry:
    """Parse an entry of `images`; LabelError with the end of a sentence."""
    values = _mapping(entry, ("id", "file_name"))
    name = _as_text(values["file_name"])
    if name is None:
        raise LabelError(_expected(values, "file_name", "a text"))
    height, width = (_as_side(values.get(key)) for key in ("height", "width"))
    size_hw = (height, width) if height and width else None
    return ImageEntry(_id(values, "id"), name.replace("\\", "/"), size_hw)


def parse_category(entry: object) -> Category:
    """Parse an entry of `categories`; LabelError with the end of a sentence."""
    values = _mapping(entry, ("id", "name"))
    name = _as_name(values["name"])
    if name is None:
        raise LabelError(_expected(values, "name", "a text"))
    parent = values.get("supercategory")
    id_ = _id(values, "id")
    return Category(id_, name, parent if isinstance(parent, str) else None)


def parse_annotation(entry: object) -> Annotation:
    """Parse an entry of `annotations`; LabelError with the end of a sentence.

    A missing bbox is that of the polygons; their area is not computed.
    """
    values = _mapping(entry, ("image_id", "category_id"))
    id_ = as_id(values.get("id"))
    area: Any = values.get("area")
    return Annotation(
        id_ if isinstance(id_, int) and id_ >= 0 else None,
        _id(values, "image_id"),
        _id(values, "category_id"),
        _bbox(values),
        area if _is_number(area) and area >= 0 else None,
        _as_flag(values.get("iscrowd")),
    )


def as_id(value: Any) -> Id | None:  # noqa: ANN401  (any JSON value)
    """A number or a text as an id; None if it is none."""
    if type(value) is int and -_TOO_LARGE < value < _TOO_LARGE:
        return value
    if isinstance(value, str):
        whole = _WHOLE.fullmatch(value.strip())
        return as_id(int(whole[1])) if whole else _as_text(value)
    if _is_number(value):
        return int(value) if value == int(value) else None
    return str(value) if type(value) is int else None  # too large for float64


def _mapping(entry: object, needed: tuple[str, ...]) -> Json:
    if not isinstance(entry, dict):
        raise LabelError(" is not a mapping of keys")
    missing = next((key for key in needed if key not in entry), None)
    if missing:
        raise LabelError(f" has no {missing}")
    return entry


def _id(values: Json, key: str) -> Id:
    found = as_id(values[key])
    if found is None:
        raise LabelError(_expected(values, key, "a whole number or a text"))
    return found


def _expected(values: Json, key: str, noun: str) -> str:
    return f".{key} is {reprlib.repr(values[key])}, expected {noun}"


def _is_number(value: Any) -> bool:  # noqa: ANN401  (any JSON value)
    return type(value) in {int, float} and abs(value) < _TOO_LARGE


def _as_text(value: Any) -> str | None:  # noqa: ANN401
    is_text = isinstance(value, str) and value != "" and not _LONE_SURROGATE.search(value)
    return value if is_text else None


def _as_name(value: object) -> str | None:
    return str(value) if _is_number(value) else _as_text(value)


def _as_side(value: object) -> int | None:
    side = as_id(value)
    return side if isinstance(side, int) and 0 < side <= _MAX_SIDE else None


def _as_flag(value: object) -> bool:
    flag = as_id(value)
    return value is True or (isinstance(flag, int) and flag != 0)


def _bbox(values: Json) -> list[float]:
    box = values.get("bbox")
    polygons = values.get("segmentation")
    if not box and isinstance(polygons, list) and polygons:
        return _bounds(polygons)
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        if "bbox" not in values:
            raise LabelError(" has no bbox")
        raise LabelError(
            f": bbox {reprlib.repr(box)} is not four finite numbers x, y, w, h",
            "box-not-finite" if _are_numbers(box) else "label-malformed",
        )
    if box[2] < 0 or box[3] < 0:
        raise LabelError(
            f": bbox {reprlib.repr(box)} has a negative width or height", "box-negative"
        )
    return box


def _are_numbers(box: object) -> bool:
    return isinstance(box, list) and len(box) == 4 and {*map(type, box)} <= {int, float}


def _bounds(polygons: list[Any]) -> list[float]:
    """The box around polygons, each a flat list x, y, x, y, ..."""
    flat = [polygons] if all(map(_is_number, polygons)) else polygons
    for polygon in flat:
        is_flat = isinstance(polygon, list) and all(map(_is_number, polygon))
        if not is_flat or len(polygon) < 4 or len(polygon) % 2:
            raise LabelError(" has no bbox, and its segmentation is not polygons")
    xs = [x for polygon in flat for x in polygon[0::2]]
    ys = [y for polygon in flat for y in polygon[1::2]]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
