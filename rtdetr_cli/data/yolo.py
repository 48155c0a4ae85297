"""YOLO text labels: images/ next to labels/, one line `class cx cy w h` in fractions per box."""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.image import has_image_name
from rtdetr_cli.data.dataset import (
    MAX_LIST_BYTES,
    DetectionDataset,
    LabelledBox,
    make_record,
    read_sizes,
    read_text,
)
from rtdetr_cli.data.problems import CLIPPED, LabelError, Problems, check_overhang, unusable

OUTSIDE_TOLERANCE = 1e-3
"""Tolerated overhang of a box, as a fraction of the image."""


def read_yolo(
    images: list[Path],
    names: dict[int, str],
    bad_images: str | None = None,
    keypoint_columns: int = 0,
) -> DetectionDataset:
    """Read the labels of images.

    An image without a label file is background. Polygons become their bounding box.

    Args:
        images: paths, each taken once.
        names: class names.
        bad_images: error or skip.
        keypoint_columns: numbers behind the box in rows of a pose data set, not used.

    Raises:
        DataError: an invalid label, an unreadable image, or no label file at all; all of them are
            listed.
    """
    problems = Problems(bad_images)
    images = _without_repeats(images, problems)
    label_paths = _label_paths(images)
    records = []
    parser = _Parser(len(names), keypoint_columns, problems)
    for number, size_hw in enumerate(read_sizes(images, problems)):
        boxes = parser.read(images[number], label_paths[number], size_hw or (1, 1))
        if images[number] not in problems.skipped:
            records.append(
                make_record(
                    number + 1, images[number], size_hw or (1, 1), boxes, f"{label_paths[number]}:"
                )
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


def _without_repeats(images: list[Path], problems: Problems) -> list[Path]:
    counts = Counter(images)
    if len(counts) < len(images):
        first = next(str(path) for path, count in counts.items() if count > 1)
        note = "images listed more than once taken once"
        problems.mend("image-listed-twice", first, note, count=len(images) - len(counts))
    return list(counts)


def list_images(folder: Path) -> list[Path]:
    """List the images in a folder and its subfolders, sorted by name.

    Raises:
        DataError: the folder is the root of the file system, which nobody means.
    """
    if folder == Path(folder.anchor):
        raise DataError(f"{folder} is the root of the file system, expected a folder of images")
    # os.walk passes over folders that disappear meanwhile; Path.rglob fails.
    paths = (Path(at, name) for at, folders, files in os.walk(folder) for name in folders + files)
    return sorted(path for path in paths if has_image_name(path))


def read_image_list(list_path: Path, root: Path) -> list[Path]:
    """Read a .txt list of images, one path per line, relative to the file or to the root."""
    text = read_text(list_path, MAX_LIST_BYTES) or ""
    images = []
    for line in filter(None, map(str.strip, text.splitlines())):
        candidates = [list_path.parent / line, root / line, Path(line)]
        images.append(next((path for path in candidates if path.is_file()), candidates[0]))
    return images


def label_path(image: Path) -> Path:
    """Path of the label file of an image: the last `images` in its path becomes `labels`."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def _label_paths(images: list[Path]) -> list[Path]:
    """Label file of each image: in labels/, or else next to it."""
    paths = [_label_file(image) for image in images]
    if any(path.is_file() for path in paths):
        return paths
    what = f"none of the {len(images)} images has a label file; expected for example {paths[0]}"
    raise unusable("labels-missing", str(images[0].parent), what)


def _label_file(image: Path) -> Path:
    path, beside = label_path(image), image.with_suffix(".txt")
    return beside if not path.is_file() and beside.is_file() else path


@dataclass(frozen=True)
class _Parser:
    """Reads label files, and reports what is wrong in them."""

    num_classes: int
    keypoint_columns: int
    problems: Problems

    def read(self, image: Path, path: Path, size_hw: tuple[int, int]) -> list[LabelledBox]:
        """Read the boxes of a file; those without area and repeated ones are dropped."""
        height, width = size_hw
        found: dict[tuple[float, ...], LabelledBox] = {}
        for number, line in enumerate(self._lines(image, path), start=1):
            where = f"{path}:{number}"
            values = line.split()
            if not values:
                continue
            try:
                label, box = self._parse(values, where, image)
            except LabelError as error:
                self.problems.reject(image, error.kind, where, str(error))
                continue
            left, top, right, bottom = box
            if right <= left or bottom <= top:
                self.problems.mend("box-without-area", where, "boxes without area dropped", image)
            elif (key := (label, *box)) in found:
                self.problems.mend("box-repeated", where, "rows that repeat dropped", image)
            else:
                corners = [left * width, top * height, right * width, bottom * height]
                found[key] = LabelledBox(label, corners, place=number)
        return list(found.values())

    def _lines(self, image: Path, path: Path) -> list[str]:
        try:
            return (read_text(path) or "").splitlines()
        except DataError as error:
            what = str(error).removeprefix(f"{path}: ")
            self.problems.reject(image, "label-unreadable", str(path), what)
            return []

    def _parse(self, values: list[str], where: str, image: Path) -> tuple[int, list[float]]:
        """Parse class index and corners in fractions; LabelError with the reason."""
        if self.keypoint_columns and len(values) == 5 + self.keypoint_columns:
            self.problems.mend("keypoints-unused", where, "keypoints not used", image)
            values = values[:5]
        if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
            raise LabelError(f"{len(values)} columns, expected 5: class cx cy w h")
        try:
            numbers = [float(value) for value in values]
        except ValueError:
            raise LabelError(f"`{' '.join(values[:6])}` are not all numbers") from None
        if not all(map(math.isfinite, numbers)):
            raise LabelError("NaN or infinity", "box-not-finite")
        if numbers[0] != int(numbers[0]) or not 0 <= numbers[0] < self.num_classes:
            expected = f"expected 0..{self.num_classes - 1}"
            raise LabelError(f"class {values[0]} is out of range, {expected}", "class-unknown")
        box = _corners(numbers[1:])
        if len(values) > 5:
            self.problems.mend("polygon-to-box", where, "polygons converted to boxes", image)
        self._check_overhang(box, where, image)
        return int(numbers[0]), box

    def _check_overhang(self, box: list[float], where: str, image: Path) -> None:
        if box[2] <= box[0] or box[3] <= box[1]:
            verdict = "outside" if max(map(abs, box)) > 2 else None
        else:
            verdict = check_overhang(box, (1, 1), OUTSIDE_TOLERANCE)
        if verdict == "outside":
            raise LabelError(
                f"box outside the image (left, top, right, bottom = "
                f"{', '.join(f'{edge:.4g}' for edge in box)}); expected fractions in 0..1",
                "box-outside-image",
            )
        if verdict:
            self.problems.mend("box-clipped", where, CLIPPED, image)


def _corners(numbers: list[float]) -> list[float]:
    if len(numbers) > 4:
        xs, ys = numbers[0::2], numbers[1::2]
        return [min(xs), min(ys), max(xs), max(ys)]
    cx, cy, width, height = numbers
    if width < 0 or height < 0:
        raise LabelError("negative width or height", "box-negative")
    return [cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2]
