"""Write a Collection as COCO json, YOLO text or Pascal VOC, with a data.yaml that opens it.

The readers are coco.py, yolo.py and voc.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import yaml

from rtdetr_cli.core.console import progress
from rtdetr_cli.core.errors import DataError, StorageError
from rtdetr_cli.core.file_names import safe_name, same_name
from rtdetr_cli.core.files import reason_of, refuse_special
from rtdetr_cli.core.image import IMAGE_SUFFIXES
from rtdetr_cli.data.collection import Box, Collection, LabelledImage, content_of

IMAGE_FOLDERS = {"coco": "images/{}", "yolo": "images/{}", "voc": "JPEGImages"}
"""Folder of the images of a split, by format."""
_ROUNDING = 1e-6
"""Pixels; coordinates that differ by less are equal."""
_ENTRIES = {
    "coco": "annotations/instances_{}.json",
    "yolo": "images/{}",
    "voc": "ImageSets/Main/{}.txt",
}
"""Value of a split in data.yaml, by format."""
_NOT_IN_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ANNOTATION = """\
<annotation>
  <folder>JPEGImages</folder>
  <filename>{name}</filename>
  <size>
    <width>{width}</width>
    <height>{height}</height>
    <depth>3</depth>
  </size>
  <segmented>0</segmented>
{objects}</annotation>
"""
_OBJECT = """\
  <object>
    <name>{name}</name>
    <pose>Unspecified</pose>
    <truncated>0</truncated>
    <difficult>{difficult}</difficult>
    <bndbox>
      <xmin>{xmin}</xmin>
      <ymin>{ymin}</ymin>
      <xmax>{xmax}</xmax>
      <ymax>{ymax}</ymax>
    </bndbox>
  </object>
"""


class _Named(NamedTuple):
    """An image and the name that its file gets."""

    name: str
    image: LabelledImage


def write_collection(
    folder: Path, collection: Collection, format: str, images: str, same: dict[str, str]
) -> list[str]:
    """Write a data set into an empty folder.

    Args:
        folder: the folder.
        collection: images and boxes.
        format: coco, yolo or voc.
        images: copy, link (symbolic, else hard) or none, which writes only the labels.
        same: splits that are another one, which is in the collection.

    Returns:
        Notes on what the format cannot hold and on images with another name.

    Raises:
        DataError: an image cannot be read, or a name cannot be written in this format.
        StorageError: links are not supported there.
    """
    named, renamed = _name_files(collection, format)
    if renamed and images == "none":
        raise DataError(
            f"images=none: {renamed[0]} needs another name, as it is taken or unsafe; copy or link"
        )
    for split, files in named.items():
        target = folder / IMAGE_FOLDERS[format].format(split)
        target.mkdir(parents=True, exist_ok=True)
        for name, image in progress(files, len(files), split) if images != "none" else ():
            _place(image.path, target / name, images)
    if format == "coco":
        notes = _write_coco(folder, collection, named)
    elif format == "yolo":
        notes = _write_yolo(folder, named)
    else:
        notes = _write_voc(folder, collection.names, named)
    entries = {split: [_ENTRIES[format].format(split)] for split in named}
    if renamed:
        notes.append(f"images renamed: {len(renamed)} (first: {renamed[0]})")
    if images == "none":
        notes += _leave_images(collection, format, entries)
    _write_yaml(
        folder, collection.names, entries | {split: entries[one] for split, one in same.items()}
    )
    return [*collection.notes, *notes]


def _name_files(collection: Collection, format: str) -> tuple[dict[str, list[_Named]], list[str]]:
    """Choose file names that are safe and whose stems differ: in a split, for VOC everywhere.

    Returns:
        The names, and `source -> name` of each image that gets another one.
    """
    named: dict[str, list[_Named]] = {}
    taken: dict[str, object] = {}
    renamed = []
    for split, images in collection.splits.items():
        taken = taken if format == "voc" else {}
        named[split] = []
        for image in images:
            name = _free_name(image, taken, format)
            named[split].append(_Named(name, image))
            if name != image.path.name:
                renamed.append(f"{image.path} -> {name}")
    return named, renamed


def _free_name(image: LabelledImage, taken: dict[str, object], format: str) -> str:
    """A name for the image; VOC has one file for an image that is in several splits."""
    suffix = image.path.suffix
    if suffix.lower() not in IMAGE_SUFFIXES:
        raise DataError(f"{image.path}: has no suffix of an image, by which readers find images")
    stem = safe_name(image.path.stem)
    stem = re.sub(r"\s", "_", stem) if format == "voc" else stem  # its lists are split at spaces
    owner = (image.path, content_of(image)) if format == "voc" else object()
    for number in count(1):
        free = f"{stem}-{number}" if number > 1 else stem
        key = same_name(f"{free}{suffix}" if format == "coco" else free)
        if taken.setdefault(key, owner) == owner:
            return f"{free}{suffix}"
    raise AssertionError("count() does not end")


def _place(source: Path, target: Path, images: str) -> None:
    """Copy or link an image; an image of two VOC splits is there already."""
    if target.is_symlink() or target.exists():
        return
    refuse_special(source, DataError)
    if images == "link":
        _link(source.resolve(), target)
        return
    try:
        stream = source.open("rb")
    except OSError as error:
        raise DataError(f"{source}: cannot be read, {reason_of(error)}") from error
    with stream, target.open("wb") as copy:
        shutil.copyfileobj(stream, copy, 1 << 20)


def _link(source: Path, target: Path) -> None:
    """Link symbolically, or, where that needs a privilege (Windows), as a second name."""
    try:
        target.symlink_to(source)
    except OSError:
        try:
            os.link(source, target)
        except OSError as error:
            raise StorageError(
                f"cannot link {source}: {reason_of(error)}; use images=copy"
            ) from error


def _write_coco(folder: Path, collection: Collection, named: dict[str, list[_Named]]) -> list[str]:
    """Write a json for each split; ids of the source are kept if they are distinct in each."""
    every = {split: [image for _, image in files] for split, files in named.items()}
    image_ids = _ids({split: [one.image_id for one in of] for split, of in every.items()}, 0)
    numbers = _ids(
        {split: [box.number for one in of for box in one.boxes] for split, of in every.items()},
        1,  # pycocotools never matches an annotation with id 0
    )
    ids = collection.category_ids or tuple(range(1, len(collection.names) + 1))
    categories = [
        {"id": number, "name": name} for number, name in zip(ids, collection.names, strict=True)
    ]
    (folder / "annotations").mkdir()
    for split, files in named.items():
        content: dict[str, Any] = {"info": {}, "licenses": [], "images": [], "annotations": []}
        number = iter(numbers[split])
        for (name, image), image_id in zip(files, image_ids[split], strict=True):
            height, width = image.size_hw
            content["images"].append(
                {"id": image_id, "file_name": name, "width": width, "height": height}
            )
            content["annotations"] += [
                {
                    "id": next(number),
                    "image_id": image_id,
                    "category_id": ids[box.label],
                    "bbox": box.xywh,
                    "area": box.area,
                    "iscrowd": int(box.crowd),
                }
                for box in image.boxes
            ]
        path = folder / _ENTRIES["coco"].format(split)
        path.write_text(json.dumps(content | {"categories": categories}), "utf-8")
    is_new = any(
        one.image_id not in {None, image_id}
        for split, of in every.items()
        for one, image_id in zip(of, image_ids[split], strict=True)
    )
    return ["image ids repeat in a split, so all are numbered again"] if is_new else []


def _ids(known: dict[str, list[int | None]], low: int) -> dict[str, list[int]]:
    """The ids of the source if they are distinct in each split, else 1, 2, 3... over all."""
    kept = {
        split: [one for one in ids if one is not None and one >= low]
        for split, ids in known.items()
    }
    if all(len(set(kept[split])) == len(ids) for split, ids in known.items()):
        return kept
    numbers = count(1)
    return {split: [next(numbers) for _ in ids] for split, ids in known.items()}


def _write_yolo(folder: Path, named: dict[str, list[_Named]]) -> list[str]:
    """Write a label file for each image, an empty one where there is no box."""
    for split, files in named.items():
        labels = folder / "labels" / split
        labels.mkdir(parents=True)
        for name, image in files:
            height, width = image.size_hw
            lines = [
                f"{box.label} {_fraction((left + right) / 2 / width)} "
                f"{_fraction((top + bottom) / 2 / height)} "
                f"{_fraction((right - left) / width)} {_fraction((bottom - top) / height)}\n"
                for box, (left, top, right, bottom) in _clipped(image)
                if not box.crowd
            ]
            path = (labels / name).with_suffix(".txt")
            path.write_text("".join(lines), "utf-8", newline="\n")
    crowds = _count(named, lambda box: box.crowd)
    lost = [f"{crowds} crowd or difficult boxes"] if crowds else []
    return _losses("YOLO text", lost, named)


def _fraction(value: float) -> str:
    """Six decimals, as most tools write, if these are right to 1e-7; else nine."""
    short = f"{value:.6f}"
    return short if abs(float(short) - value) <= 1e-7 else f"{value:.9f}"


def _write_voc(folder: Path, names: tuple[str, ...], named: dict[str, list[_Named]]) -> list[str]:
    """Write an XML for each image; the first pixel is 1, and crowds are marked difficult."""
    (folder / "Annotations").mkdir()
    (folder / "ImageSets/Main").mkdir(parents=True)
    for text in (*names, *(name for files in named.values() for name, _ in files)):
        if _NOT_IN_XML.search(text):
            raise DataError(f"{text}: has a character that XML cannot hold")
    escaped = list(map(escape, names))
    for split, files in named.items():
        for name, image in files:
            path = (folder / "Annotations" / name).with_suffix(".xml")
            path.write_text(_annotation(name, image, escaped), "utf-8", newline="\n")
        stems = "".join(f"{Path(name).stem}\n" for name, _ in files)
        (folder / _ENTRIES["voc"].format(split)).write_text(stems, "utf-8", newline="\n")
    parts = _count(named, lambda box: any("." in _pixels(edge) for edge in box.xywh))
    note = f"boxes with parts of pixels, written as decimals: {parts}"
    images = [image for files in named.values() for _, image in files]
    thin = sum(_is_thin(corners) for image in images for _, corners in _clipped(image))
    lost = [f"{thin} boxes up to one pixel wide or high"] if thin else []
    return [*_losses("Pascal VOC", lost, named), *([note] if parts else [])]


def _annotation(name: str, image: LabelledImage, names: Sequence[str]) -> str:
    """The XML of an image; `names` are escaped."""
    height, width = image.size_hw
    objects = [
        _OBJECT.format(
            name=names[box.label],
            difficult=int(box.crowd),
            xmin=_pixels(left + 1),
            ymin=_pixels(top + 1),
            xmax=_pixels(right),
            ymax=_pixels(bottom),
        )
        for box, (left, top, right, bottom) in _clipped(image)
        if not _is_thin((left, top, right, bottom))
    ]
    return _ANNOTATION.format(
        name=escape(name), width=width, height=height, objects="".join(objects)
    )


def _is_thin(corners: tuple[float, float, float, float]) -> bool:
    """Whether first and last pixel are the same, which readers take for a box without area."""
    left, top, right, bottom = corners
    return min(right - left, bottom - top) <= 1 + _ROUNDING


def _pixels(value: float) -> str:
    """All digits; whole pixels that came through YOLO text (1e-9 of the image) are whole again."""
    return str(round(value)) if abs(value - round(value)) < _ROUNDING else repr(float(value))


def _clipped(image: LabelledImage) -> Iterator[tuple[Box, tuple[float, float, float, float]]]:
    """The boxes with an area, and their left, top, right and bottom edge inside the image."""
    height, width = image.size_hw
    for box in image.boxes:
        left, top, box_width, box_height = box.xywh
        right, bottom = min(left + box_width, float(width)), min(top + box_height, float(height))
        left, top = max(float(left), 0.0), max(float(top), 0.0)
        if right > left and bottom > top:
            yield box, (left, top, right, bottom)


def _count(named: dict[str, list[_Named]], is_meant: Callable[[Box], bool]) -> int:
    return sum(is_meant(box) for files in named.values() for _, im in files for box in im.boxes)


def _losses(noun: str, lost: list[str], named: dict[str, list[_Named]]) -> list[str]:
    """One sentence on what the format cannot hold."""
    every = [image for files in named.values() for _, image in files]
    flat = sum(len(image.boxes) - len([*_clipped(image)]) for image in every)
    lost += [f"{flat} boxes without area"] if flat else []
    lost += ["ids of images and boxes"] if any(im.image_id is not None for im in every) else []
    return [f"{noun} cannot hold, left out: {', '.join(lost)}"] if lost else []


def _leave_images(collection: Collection, format: str, entries: dict[str, list[str]]) -> list[str]:
    """Name the folder of the source beside the json if it is one; else say where images belong."""
    notes = []
    for split, images in collection.splits.items():
        folders = {str(image.path.parent.absolute()) for image in images}
        if format == "coco" and len(folders) == 1:
            entries[split] += folders
            notes.append(f"images=none: images of {split} stay in {entries[split][1]}")
        else:
            place = IMAGE_FOLDERS[format].format(split)
            notes.append(f"images=none: those of {split} belong into {place}")
    return notes


def _write_yaml(folder: Path, names: tuple[str, ...], entries: dict[str, list[str]]) -> None:
    """Write data.yaml; without `path`, every reader takes the folder of the file."""
    lines = []
    for split, places in entries.items():
        several = f"[{', '.join(map(_quoted, places))}]"
        lines.append(f"{split}: {several if len(places) > 1 else places[0]}")
    lines += ["names:", *(f"  {index}: {_quoted(name)}" for index, name in enumerate(names))]
    (folder / "data.yaml").write_text("\n".join(lines) + "\n", "utf-8", newline="\n")


def _quoted(text: str) -> str:
    """A YAML string; without quotes 1e3 is a number."""
    written: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=1 << 20)
    return written.strip()
