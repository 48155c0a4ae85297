"""What every label format becomes: records of one split, and their ground truth in COCO form.

The readers stand next door (yolo.py, coco.py, voc.py, shapes.py); splits.py picks one.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.files import reason_of, refuse_special
from rtdetr_cli.core.image import read_image_size

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MAX_ANNOTATION_BYTES = 16 << 20
"""Of one image's labels: 400,000 boxes as text."""
MAX_LIST_BYTES = 1 << 30
"""Of a list of images: ten million paths."""


@dataclass(frozen=True)
class Record:
    """One image and its boxes.

    Attributes:
        path: the image.
        size_hw: height and width of the upright image, pixels.
        image_id: unique in the split; a COCO json's own.
        boxes_xyxy: (N, 4) float32 pixels, inside the image, larger than nothing.
        labels: (N,) int64, class indices 0..K-1.
        iscrowd: (N,) bool, regions that stand for many objects: not trained on.
    """

    path: Path
    size_hw: tuple[int, int]
    image_id: int
    boxes_xyxy: Floats
    labels: Ints
    iscrowd: Bools


@dataclass(frozen=True)
class DetectionDataset:
    """One split of a data set.

    Attributes:
        names: class index to name.
        category_ids: the ground truth's category id of each class index.
        records: one for each image.
        notes: what was odd and mended, a sentence each, for the user to read.
        annotations: the ground truth's own annotations where the source has COCO form; those of
            other sources are made from the records.
    """

    names: dict[int, str]
    category_ids: list[int]
    records: list[Record]
    notes: list[str] = field(default_factory=list)
    annotations: list[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def num_boxes(self) -> int:
        """Boxes that can be trained on."""
        return sum(int((~record.iscrowd).sum()) for record in self.records)

    def ground_truth(self) -> dict[str, Any]:
        """Images, annotations and categories as in a COCO json; bbox is [x, y, w, h] in pixels."""
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


@dataclass
class Problems:
    """Collects what is wrong with the labels, to say it in one sentence."""

    first: str = ""
    """The first error."""
    count: int = 0
    """Errors; only the first is kept, as a damaged file may have millions."""
    mended: dict[str, tuple[str, int]] = field(default_factory=dict)
    """What was put right: where first, how often."""

    def error(self, where: str, what: str) -> None:
        """Something that only the user can mend."""
        self.add(f"{where}: {what}")

    def add(self, sentence: str) -> None:
        """The sentence of an error that only the user can mend."""
        self.first = self.first or sentence
        self.count += 1

    def mend(self, where: str, what: str) -> None:
        """Something that was put right; the user reads how often, and where first."""
        first, count = self.mended.get(what, (where, 0))
        self.mended[what] = (first, count + 1)

    def notes(self) -> list[str]:
        """A sentence for each kind of mended thing."""
        return [f"{what}: {count} (first: {at})" for what, (at, count) in self.mended.items()]

    def raise_if_any(self, origin: str = "") -> None:
        """End with the first error, in the file `origin`, and the number of further ones."""
        if self.count:
            more = f" (and {self.count - 1} more mistakes)" if self.count > 1 else ""
            raise DataError(origin + self.first + more)


def read_bytes(path: Path, limit: int = MAX_ANNOTATION_BYTES) -> bytes | None:
    """A file of a data set; None where there is none.

    Raises:
        DataError: a FIFO or a device, larger than `limit` bytes, or it cannot be read.
    """
    refuse_special(path, DataError)
    try:
        if path.stat().st_size > limit:
            raise DataError(f"{path}: is larger than the {limit >> 20} MiB that are read")
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = reason_of(error) if isinstance(error, OSError) else error
        raise DataError(f"{path}: cannot be read, {reason}") from error


def read_text(path: Path, limit: int = MAX_ANNOTATION_BYTES) -> str | None:
    """As `read_bytes`, and DataError if it is no UTF-8 text."""
    content = read_bytes(path, limit)
    try:
        return None if content is None else content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text file") from error


class LabelledBox(NamedTuple):
    """What a reader finds: class index, (left, top, right, bottom) in pixels, is it a crowd."""

    label: int
    corners: list[float]
    crowd: bool = False


def make_record(
    image_id: int, path: Path, size_hw: tuple[int, int], boxes: list[LabelledBox]
) -> Record:
    """Gather the boxes of one image, clipped to it."""
    height, width = size_hw
    corners = np.array([box.corners for box in boxes], np.float64).reshape(-1, 4)
    return Record(
        path=path,
        size_hw=size_hw,
        image_id=image_id,
        boxes_xyxy=corners.clip(0, [width, height, width, height]).astype(np.float32),
        labels=np.array([box.label for box in boxes], np.int64),
        iscrowd=np.array([box.crowd for box in boxes], bool),
    )


def read_sizes(images: list[Path]) -> list[tuple[int, int]]:
    """(height, width) of each upright image, from its header.

    Raises:
        DataError: images that are missing or no images; all of them are counted.
    """
    problems = Problems()

    def read(image: Path) -> tuple[int, int]:
        try:
            return read_image_size(image)
        except DataError as error:
            problems.add(str(error))
            return (0, 0)

    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(read, images))
    problems.raise_if_any()
    return sizes
