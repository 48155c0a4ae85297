"""The common form of all label formats: records of a split, and ground truth in COCO format.

The readers are yolo.py, coco.py, voc.py and shapes.py; splits.py chooses one.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.files import reason_of, refuse_special
from rtdetr_cli.core.findings import Finding
from rtdetr_cli.core.image import read_image_size
from rtdetr_cli.data.problems import Problems

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MAX_ANNOTATION_BYTES = 16 << 20
"""Limit for the labels of one image: 400,000 boxes as text."""
MAX_LIST_BYTES = 1 << 30
"""Limit for a list of images: ten million paths."""


@dataclass(frozen=True)
class Record:
    """One image and its boxes.

    Attributes:
        path: image file.
        size_hw: height and width of the upright image, pixels.
        image_id: unique in the split; from the COCO json if there is one.
        boxes_xyxy: (N, 4) float32 pixels, inside the image, with an area.
        labels: (N,) int64, class indices 0..K-1.
        iscrowd: (N,) bool, regions with many objects, not trained on.
        places: (N,) int64, line, object or annotation of each box.
        source: text before a place: `labels/7.txt:`, `7.xml: object `, `a.json: annotations[`.
    """

    path: Path
    size_hw: tuple[int, int]
    image_id: int
    boxes_xyxy: Floats
    labels: Ints
    iscrowd: Bools
    places: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    source: str = ""

    def place_of(self, box: int) -> str:
        """Where a box was read, e.g. `labels/7.txt:3`."""
        return f"{self.source}{self.places[box]}{']' * self.source.endswith('[')}"


@dataclass(frozen=True)
class DetectionDataset:
    """One split of a data set.

    Attributes:
        names: class index to name.
        category_ids: category id in the ground truth of each class index.
        records: one per image.
        notes: sentences about corrected labels, for the user.
        annotations: original annotations of a COCO json; for other formats, they are made from
            the records.
        skipped: images left out by bad_images=skip, and the reason.
        image_texts: ids in the COCO json of images whose id is a text, by image_id.
        category_texts: likewise of categories.
        findings: what was corrected, and with bad_images=report the errors of images.
        listed: classes that a COCO json lists itself; None: the format has no such list.
    """

    names: dict[int, str]
    category_ids: list[int]
    records: list[Record]
    notes: list[str] = field(default_factory=list)
    annotations: list[dict[str, Any]] | None = None
    skipped: dict[Path, str] = field(default_factory=dict)
    image_texts: dict[int, str] = field(default_factory=dict)
    category_texts: dict[int, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    listed: frozenset[str] | None = None

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def num_boxes(self) -> int:
        """Number of boxes to train on, without crowd regions."""
        return sum(int((~record.iscrowd).sum()) for record in self.records)

    def ground_truth(self) -> dict[str, Any]:
        """Return the ground truth as in a COCO json, bbox [x, y, w, h] in pixels."""
        annotations = self.annotations
        if annotations is None:
            annotations = [box for record in self.records for box in self._annotations_of(record)]
            for number, annotation in enumerate(annotations, start=1):
                annotation["id"] = number
        return {
            "images": [_image_entry(record) for record in self.records],
            "annotations": annotations,
            "categories": [
                {"id": category_id, "name": self.names[index]}
                for index, category_id in enumerate(self.category_ids)
            ],
        }

    def _annotations_of(self, record: Record) -> list[dict[str, Any]]:
        corners = record.boxes_xyxy.astype(np.float64)
        sizes = corners[:, 2:] - corners[:, :2]
        return [
            {
                "image_id": record.image_id,
                "category_id": self.category_ids[label],
                "bbox": [*low, *size],
                "area": size[0] * size[1],
                "iscrowd": int(crowd),
            }
            for low, size, label, crowd in zip(
                corners[:, :2].tolist(), sizes.tolist(), record.labels, record.iscrowd, strict=True
            )
        ]


def _image_entry(record: Record) -> dict[str, Any]:
    height, width = record.size_hw
    return {
        "id": record.image_id,
        "file_name": record.path.name,
        "height": height,
        "width": width,
    }


def read_bytes(path: Path, limit: int = MAX_ANNOTATION_BYTES) -> bytes | None:
    """Read a file of a data set; None if it does not exist.

    Raises:
        DataError: a FIFO or a device, larger than `limit` bytes, or it cannot be read.
    """
    refuse_special(path, DataError)
    try:
        if path.stat().st_size > limit:
            raise DataError(f"{path}: is larger than the limit of {limit >> 20} MiB")
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = reason_of(error) if isinstance(error, OSError) else error
        raise DataError(f"{path}: cannot be read, {reason}") from error


def read_text(path: Path, limit: int = MAX_ANNOTATION_BYTES) -> str | None:
    """As `read_bytes`; also raises DataError if it is not UTF-8 text."""
    content = read_bytes(path, limit)
    try:
        return None if content is None else content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not a text file") from error


class LabelledBox(NamedTuple):
    """One box: class index, (left, top, right, bottom) in pixels, whether it is a crowd, place."""

    label: int
    corners: list[float]
    crowd: bool = False
    place: int = 0


def make_record(
    image_id: int,
    path: Path,
    size_hw: tuple[int, int],
    boxes: list[LabelledBox],
    source: str = "",
) -> Record:
    """Make the record of an image; its boxes are clipped to it."""
    height, width = size_hw
    corners = np.array([box.corners for box in boxes], np.float64).reshape(-1, 4)
    return Record(
        path=path,
        size_hw=size_hw,
        image_id=image_id,
        boxes_xyxy=corners.clip(0, [width, height, width, height]).astype(np.float32),
        labels=np.array([box.label for box in boxes], np.int64),
        iscrowd=np.array([box.crowd for box in boxes], bool),
        places=np.array([box.place for box in boxes], np.int64),
        source=source,
    )


def read_sizes(images: list[Path], problems: Problems) -> list[tuple[int, int] | None]:
    """Read (height, width) of each upright image from its header; None if it cannot be read."""

    def read(image: Path) -> tuple[int, int] | DataError:
        try:
            return read_image_size(image)
        except DataError as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, images))
    sizes: list[tuple[int, int] | None] = []
    for image, size in zip(images, found, strict=True):
        if isinstance(size, DataError):  # reported here, in the order of the images
            exists = os.path.exists(image)  # noqa: PTH110  (never raises, whatever the name)
            kind = "image-unreadable" if exists else "image-missing"
            problems.reject(image, kind, str(image), str(size).removeprefix(f"{image}: "))
        sizes.append(None if isinstance(size, DataError) else size)
    return sizes
