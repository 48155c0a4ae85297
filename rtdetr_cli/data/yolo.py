"""YOLO text labels: images/ next to labels/, one line `class cx cy w h` in fractions per box."""

from __future__ import annotations

import math
import os
from pathlib import Path

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.image import IMAGE_SUFFIXES
from rtdetr_cli.data.dataset import (
    MAX_LIST_BYTES,
    DetectionDataset,
    LabelledBox,
    Problems,
    make_record,
    read_sizes,
    read_text,
)

OUTSIDE_TOLERANCE = 1e-3
"""Tolerated overhang of a box, as a fraction of the image."""


def read_yolo(images: list[Path], names: dict[int, str]) -> DetectionDataset:
    """Read the labels of images.

    An image without a label file is background. Polygons become their bounding box.

    Raises:
        DataError: an invalid label, an unreadable image, or no label file at all.
    """
    label_paths = _label_paths(images)
    problems = Problems()
    records = []
    for number, size_hw in enumerate(read_sizes(images)):
        boxes = _read_labels(label_paths[number], size_hw, len(names), problems)
        records.append(make_record(number + 1, images[number], size_hw, boxes))
    problems.raise_if_any()
    return DetectionDataset(names, list(range(len(names))), records, problems.notes())


def list_images(folder: Path) -> list[Path]:
    """List the images in a folder and its subfolders, sorted by name.

    Raises:
        DataError: the folder is the root of the file system, which nobody means.
    """
    if folder == Path(folder.anchor):
        raise DataError(f"{folder} is the root of the file system, expected a folder of images")
    # os.walk passes over folders that disappear meanwhile; Path.rglob fails.
    paths = (Path(at, name) for at, folders, files in os.walk(folder) for name in folders + files)
    found = (path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(path for path in found if not path.name.startswith("."))


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
    """Label file of each image, in labels/ or next to the image."""
    in_labels = [label_path(image) for image in images]
    beside = [image.with_suffix(".txt") for image in images]
    for paths in (in_labels, beside):
        if any(path.is_file() for path in paths):
            return paths
    raise DataError(
        f"{images[0].parent}: none of the {len(images)} images has a label file; "
        f"expected for example {in_labels[0]}"
    )


def _read_labels(
    path: Path, size_hw: tuple[int, int], num_classes: int, problems: Problems
) -> list[LabelledBox]:
    """Read the boxes of a file; those without area are dropped."""
    height, width = size_hw
    found = []
    for number, line in enumerate(_lines(path, problems), start=1):
        where = f"{path}:{number}"
        values = line.split()
        if not values:
            continue
        try:
            label, box = _parse(values, num_classes)
        except ValueError as error:
            problems.error(where, str(error))
            continue
        if box[2] <= box[0] or box[3] <= box[1]:
            problems.mend(where, "boxes without area dropped")
            continue
        if len(values) > 5:
            problems.mend(where, "polygons converted to boxes")
        left, top, right, bottom = box
        found.append(
            LabelledBox(label, [left * width, top * height, right * width, bottom * height])
        )
    return found


def _lines(path: Path, problems: Problems) -> list[str]:
    try:
        return (read_text(path) or "").splitlines()
    except DataError as error:
        problems.add(str(error))
        return []


def _parse(values: list[str], num_classes: int) -> tuple[int, list[float]]:
    """Parse class index and corners in fractions; ValueError with the reason."""
    if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
        raise ValueError(f"{len(values)} columns, expected 5: class cx cy w h")
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        raise ValueError(f"`{' '.join(values[:6])}` are not all numbers") from None
    if not all(map(math.isfinite, numbers)):
        raise ValueError("NaN or infinity")
    if numbers[0] != int(numbers[0]) or not 0 <= numbers[0] < num_classes:
        raise ValueError(f"class {values[0]} is out of range, expected 0..{num_classes - 1}")
    box = _corners(numbers[1:])
    if min(box) < -OUTSIDE_TOLERANCE or max(box) > 1 + OUTSIDE_TOLERANCE:
        raise ValueError(
            f"box outside the image (left, top, right, bottom = "
            f"{', '.join(f'{edge:.4g}' for edge in box)}); expected fractions in 0..1"
        )
    return int(numbers[0]), box


def _corners(numbers: list[float]) -> list[float]:
    if len(numbers) > 4:
        xs, ys = numbers[0::2], numbers[1::2]
        return [min(xs), min(ys), max(xs), max(ys)]
    cx, cy, width, height = numbers
    if width < 0 or height < 0:
        raise ValueError("negative width or height")
    return [cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2]
