"""Pascal VOC: Annotations/*.xml and JPEGImages/, splits listed in ImageSets/Main/*.txt."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

from rtdetr_cli.core.errors import DataError, nearest
from rtdetr_cli.data.dataset import (
    MAX_LIST_BYTES,
    DetectionDataset,
    LabelledBox,
    Problems,
    make_record,
    read_bytes,
    read_sizes,
    read_text,
)

OUTSIDE_TOLERANCE_PIXELS = 1.0
"""Tolerated overhang of a box: tools count from 0 or from 1."""


def is_voc_list(path: Path) -> bool:
    """Whether a file is a split of a VOC data set."""
    return path.suffix == ".txt" and path.parent.parent.name == "ImageSets"


def read_voc(lists: list[Path], names: dict[int, str] | None) -> DetectionDataset:
    """Read the images of one or more ImageSets lists.

    Objects marked difficult become crowd regions: not trained on, and ignored in evaluation.

    Args:
        lists: files ImageSets/Main/*.txt.
        names: the classes; None: all classes in Annotations, in alphabetical order.

    Raises:
        DataError: missing or broken files, unknown classes, invalid boxes.
    """
    problems = Problems()
    stems = [
        (path.parents[2], line.split()[0])
        for path in lists
        for line in (read_text(path, MAX_LIST_BYTES) or "").splitlines()
        if line.strip()
    ]
    if not stems:
        raise DataError(f"{lists[0]}: lists no images")
    names = names or _all_names({root for root, _ in stems})
    xmls = [root / "Annotations" / f"{stem}.xml" for root, stem in stems]
    images = [root / "JPEGImages" / f"{stem}.jpg" for root, stem in stems]
    index_of = {name: index for index, name in names.items()}
    records = []
    for number, size_hw in enumerate(read_sizes(images)):
        boxes = _read_boxes(xmls[number], index_of, size_hw, problems)
        records.append(make_record(number + 1, images[number], size_hw, boxes))
    problems.raise_if_any()
    return DetectionDataset(names, list(range(len(names))), records, problems.notes())


def _all_names(roots: set[Path]) -> dict[int, str]:
    xmls = (path for root in roots for path in (root / "Annotations").glob("*.xml"))
    found = {node.text or "" for path in xmls for node in _parse(path).iterfind("object/name")}
    return dict(enumerate(sorted(found)))


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
    path: Path, index_of: dict[str, int], size_hw: tuple[int, int], problems: Problems
) -> list[LabelledBox]:
    try:
        objects = _parse(path).findall("object")
    except DataError as error:
        problems.add(str(error))
        return []
    boxes = []
    for number, node in enumerate(objects):
        name = node.findtext("name", "")
        edges = [node.findtext(f"bndbox/{key}", "") for key in ("xmin", "ymin", "xmax", "ymax")]
        wrong = _what_is_wrong(name, edges, index_of, size_hw)
        if wrong:
            problems.error(f"{path}: object {number}", wrong)
            continue
        left, top, right, bottom = map(float, edges)
        if right <= left or bottom <= top:
            problems.mend(str(path), "boxes without area dropped")
            continue
        # VOC names the first and the last pixel, counted from 1 (as Detectron2 reads it).
        difficult = node.findtext("difficult", "0").strip() == "1"
        corners = [left - 1, top - 1, right, bottom]
        boxes.append(LabelledBox(index_of[name], corners, difficult))
    return boxes


def _what_is_wrong(
    name: str, edges: list[str], index_of: dict[str, int], size_hw: tuple[int, int]
) -> str | None:
    if name not in index_of:
        return f"class {name} is not among names{nearest(name, index_of)}"
    try:
        left, top, right, bottom = map(float, edges)
    except ValueError:
        return f"bndbox {edges} is not four numbers"
    if not all(map(math.isfinite, (left, top, right, bottom))):
        return f"bndbox {edges} has NaN or infinity"
    height, width = size_hw
    beyond = max(-left, -top, right - width, bottom - height)
    if beyond > OUTSIDE_TOLERANCE_PIXELS:
        return f"box {edges} outside the image of {width}x{height}"
    return None
