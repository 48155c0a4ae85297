"""Data sets that another one is made of: their splits, their format, and the folder to write.

Used by `rtdetr convert` and `rtdetr check fix=`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rtdetr_cli.config.dataset import SPLITS, DatasetConfig
from rtdetr_cli.core.console import warn
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.core.files import user_path
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.splits import ensure_present, open_split


def new_output(key: str, out: str, sources: list[DatasetConfig]) -> Path:
    """Return the folder to write, the value of `key`.

    Raises:
        UsageError: it exists and is not empty, or it is in a source.
    """
    try:
        output = user_path(out).resolve()
        is_free = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL, no permission
        raise UsageError(f"{key}={out} cannot be a folder") from None
    if not is_free:
        raise UsageError(f"{key}={out} exists and is not an empty folder; name a new one")
    for config in sources:
        if output.is_relative_to(config.path.resolve()):
            where = f"in the folder of the data set, {config.path}"
            raise UsageError(f"{key}={out} is {where}; name one outside of it")
    return output


def read_splits(
    sources: list[DatasetConfig], decode: bool = True
) -> tuple[list[tuple[str, DetectionDataset]], dict[str, str]]:
    """Open all splits of all sources.

    Args:
        sources: the data sets.
        decode: whether bad_images=skip leaves out the images that cannot be decoded.

    Returns:
        Pairs of a split and its content; and splits that only list the files of another one, by
        the name of that one: a json without a YAML is both train and val. Such files are taken
        once, as boxes to train on must not come into the val split of a merged data set.
    """
    parts: list[tuple[str, DetectionDataset]] = []
    same: dict[str, str] = {}
    for config in sources:
        ensure_present(config)
        entries = {split: found for split in SPLITS if (found := getattr(config, split))}
        for split, found in entries.items():
            first = next(one for one, other in entries.items() if other == found)
            if first != split:
                same[split] = first
                continue
            dataset = open_split(config, split, decode)
            for note in dataset.notes:
                warn(f"{split}: {note}")
            parts.append((split, dataset))
    filled = {split for split, _ in parts}
    return parts, {split: first for split, first in same.items() if split not in filled}


def format_of(datasets: Iterable[DetectionDataset]) -> str:
    """Return the format that the splits of a data set were read from: coco, voc or yolo."""
    datasets = list(datasets)
    if any(one.annotations is not None for one in datasets):
        return "coco"
    is_voc = all(".xml:" in one.records[0].source for one in datasets)
    return "voc" if is_voc else "yolo"
