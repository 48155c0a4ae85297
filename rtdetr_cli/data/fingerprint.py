"""Fingerprint of a data set: a resumed run must use the same data."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.data.dataset import DetectionDataset

Fingerprint = dict[str, dict[str, str]]
"""Split -> part -> digest of that part."""


def fingerprint(splits: dict[str, DetectionDataset]) -> Fingerprint:
    """Compute the fingerprint of splits; independent of their location."""
    return {name: _of_split(split) for name, split in splits.items()}


def check_unchanged(origin: str, before: Fingerprint, found: Fingerprint) -> None:
    """Compare the data of a resumed run with those at its start.

    Raises:
        DataError: the data differ; the message names the first difference.
    """
    for split, parts in found.items():
        for part, value in parts.items():
            former = before.get(split, {}).get(part)
            if former != value:
                counted = f" ({former} then, {value} now)" if part.startswith("number") else ""
                raise DataError(
                    f"{origin}: the {part} of the {split} split changed since the run was "
                    f"started{counted}; restore the data, or start a new run from its last.pt "
                    "with model="
                )


def _of_split(split: DetectionDataset) -> dict[str, str]:
    paths = [record.path for record in split.records]
    root = os.path.commonpath([path.parent for path in paths])
    files, sizes, labels = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    for record in split.records:
        files.update(f"{Path(os.path.relpath(record.path, root)).as_posix()}\n".encode())
        sizes.update(f"{record.size_hw} {record.path.stat().st_size}\n".encode())
        for array in (record.boxes_xyxy, record.labels, record.iscrowd):
            labels.update(f"{len(array)} ".encode() + array.tobytes())
    return {
        "class names": ", ".join(split.names[index] for index in sorted(split.names)),
        "number of images": str(len(paths)),
        "list of images": files.hexdigest(),
        "image files": sizes.hexdigest(),
        "labels": labels.hexdigest(),
    }
