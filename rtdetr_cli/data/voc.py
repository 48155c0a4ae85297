"""Pascal VOC: Annotations/*.xml and JPEGImages/, splits listed in ImageSets/Main/*.txt."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from rtdetr_cli.core.errors import DataError, nearest
from rtdetr_cli.core.image import has_image_name
from rtdetr_cli.data.dataset import (
    MAX_LIST_BYTES,
    DetectionDataset,
    LabelledBox,
    make_record,
    read_bytes,
    read_sizes,
    read_text,
)
from rtdetr_cli.data.problems import (
    CLIPPED,
    LabelError,
    Problems,
    check_overhang,
    check_size,
    unusable,
)

OUTSIDE_TOLERANCE_PIXELS = 2.0
"""Tolerated overhang of a box: tools count from 0 or from 1, and round."""


def is_voc_list(path: Path) -> bool:
    """Whether a file is a split of a VOC data set."""
    return path.suffix == ".txt" and path.parent.parent.name == "ImageSets"


def read_voc(
    lists: list[Path], names: dict[int, str] | None, bad_images: str | None = None
) -> DetectionDataset:
    """Read the images of one or more ImageSets lists.

    Objects marked difficult become crowd regions: not trained on, and ignored in evaluation.

    Args:
        lists: files ImageSets/Main/*.txt.
        names: the classes; None: all classes in Annotations, in alphabetical order.
        bad_images: error or skip.

    Raises:
        DataError: missing or broken files, unknown classes, invalid boxes; all of them are listed.
    """
    problems = Problems(bad_images)
    listed = [
        (path.parents[2], line.split()[0])
        for path in lists
        for line in (read_text(path, MAX_LIST_BYTES) or "").splitlines()
        if line.strip()
    ]
    stems = list(dict.fromkeys(listed))
    if len(stems) < len(listed):
        note = "images listed more than once taken once"
        problems.mend("image-listed-twice", str(lists[0]), note, count=len(listed) - len(stems))
    if not stems:
        raise unusable("split-empty", str(lists[0]), "lists no images")
    names = names or _all_names({root for root, _ in stems})
    images = _image_paths(stems)
    index_of = {name: index for index, name in names.items()}
    records = []
    for number, size_hw in enumerate(read_sizes(images, problems)):
        root, stem = stems[number]
        image = _Annotated(images[number], root / "Annotations" / f"{stem}.xml", size_hw or (1, 1))
        boxes = _read_boxes(image, index_of, problems) if size_hw else []
        if image.path not in problems.skipped:
            records.append(
                make_record(number + 1, image.path, image.size_hw, boxes, f"{image.xml}: object ")
            )
    problems.raise_if_any()
    return DetectionDataset(
        names,
        list(range(len(names))),
        records,
        problems.notes(),
        skipped=problems.skipped,
        findings=problems.findings(),
    )


def _image_paths(stems: list[tuple[Path, str]]) -> list[Path]:
    """Image of each stem, of any suffix; .jpg, as published, wins."""
    folders = {root / "JPEGImages" for root, _ in stems}
    files = {path for folder in folders for path in folder.glob("*") if has_image_name(path)}
    other = {path.with_suffix(""): path for path in sorted(files, reverse=True)}
    usual = [root / "JPEGImages" / f"{stem}.jpg" for root, stem in stems]
    return [
        path if path in files else other.get(path.parent / stem, path)
        for path, (_, stem) in zip(usual, stems, strict=True)
    ]


class _Annotated(NamedTuple):
    """An image, its annotations, and (height, width)."""

    path: Path
    xml: Path
    size_hw: tuple[int, int]


def _all_names(roots: set[Path]) -> dict[int, str]:
    xmls = (path for root in roots for path in (root / "Annotations").glob("*.xml"))
    found = {(node.text or "").strip() for path in xmls for node in _names_in(path)}
    return dict(enumerate(sorted(found)))


def _names_in(path: Path) -> list[ElementTree.Element]:
    try:
        return _parse(path).findall("object/name")
    except DataError:  # reported by the split that has it
        return []


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Rejects a document type, whose entities could expand without bound."""

    def doctype(self, *_: str | None) -> None:
        raise ElementTree.ParseError("a document type (DTD) is not supported")


def _parse(path: Path) -> ElementTree.Element:
    content = read_bytes(path)
    if content is None:
        raise DataError(f"{path}: no such annotation")
    parser = ElementTree.XMLParser(target=_WithoutDoctype())
    try:
        parser.feed(content)
        root: ElementTree.Element = parser.close()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # odd encodings
        raise DataError(f"{path}: broken XML, {error}") from error
    return root


def _read_boxes(
    image: _Annotated, index_of: dict[str, int], problems: Problems
) -> list[LabelledBox]:
    try:
        root = _parse(image.xml)
    except DataError as error:
        exists = os.path.exists(image.xml)  # noqa: PTH110  (never raises, whatever the name)
        kind = "label-unreadable" if exists else "label-missing"
        what = str(error).removeprefix(f"{image.xml}: ")
        problems.reject(image.path, kind, str(image.xml), what)
        return []
    check_size(image.path, _stated_size(root), image.size_hw, problems)
    boxes: dict[tuple[object, ...], LabelledBox] = {}
    for number, node in enumerate(root.findall("object")):
        where = f"{image.xml}: object {number}"
        name = node.findtext("name", "").strip()
        edges = [node.findtext(f"bndbox/{key}", "") for key in ("xmin", "ymin", "xmax", "ymax")]
        try:
            _check_values(name, edges, index_of)
        except LabelError as error:
            problems.reject(image.path, error.kind, where, str(error))
            continue
        left, top, right, bottom = map(float, edges)
        if right <= left or bottom <= top:
            problems.mend("box-without-area", where, "boxes without area dropped", image.path)
            continue
        difficult = node.findtext("difficult", "0").strip() == "1"
        # VOC names the first and the last pixel, counted from 1 (as Detectron2 reads it).
        box = LabelledBox(index_of[name], [left - 1, top - 1, right, bottom], difficult, number)
        key = (name, *box.corners)
        if key in boxes:
            problems.mend("box-repeated", where, "objects that repeat dropped", image.path)
        elif _is_inside(box.corners, edges, where, image, problems):
            boxes[key] = box
    return list(boxes.values())


def _stated_size(root: ElementTree.Element) -> tuple[int, int] | None:
    height, width = (root.findtext(f"size/{key}", "").strip() for key in ("height", "width"))
    is_given = all(side.isdecimal() and len(side) < 8 for side in (height, width))
    size_hw = (int(height), int(width)) if is_given else (0, 0)
    return size_hw if all(size_hw) else None


def _is_inside(
    corners: list[float], edges: list[str], where: str, image: _Annotated, problems: Problems
) -> bool:
    verdict = check_overhang(corners, image.size_hw, OUTSIDE_TOLERANCE_PIXELS)
    if verdict == "outside":
        height, width = image.size_hw
        what = f"box {edges} outside the image of {width}x{height}"
        problems.reject(image.path, "box-outside-image", where, what)
    elif verdict:
        problems.mend("box-clipped", where, CLIPPED, image.path)
    return verdict != "outside"


def _check_values(name: str, edges: list[str], index_of: dict[str, int]) -> None:
    if name not in index_of:
        hint = nearest(name, index_of)
        raise LabelError(f"class {name} is not among names{hint}", "class-unknown")
    try:
        numbers = [float(edge) for edge in edges]
    except ValueError:
        raise LabelError(f"bndbox {edges} is not four numbers") from None
    if not all(map(math.isfinite, numbers)):
        raise LabelError(f"bndbox {edges} has NaN or infinity", "box-not-finite")
