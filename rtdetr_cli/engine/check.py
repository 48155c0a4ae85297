"""`rtdetr check`: validate a data set before training."""

from __future__ import annotations

import json
from collections import Counter

from rtdetr_cli.config.dataset import SPLITS, DatasetConfig
from rtdetr_cli.config.settings.modes import CheckSettings
from rtdetr_cli.core.console import progress, result_json, table, warn
from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.status import counted
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.image_cache import decode_record
from rtdetr_cli.data.splits import ensure_present, load_data, open_split


def check(settings: CheckSettings) -> None:
    """Open every split, decode every image and count images and boxes.

    Args:
        settings: every key of `rtdetr check`.

    Raises:
        DataError: a label or an image is unusable; all of them are listed on stderr first.
    """
    config = load_data(settings.data, settings.download, settings.bad_images)
    ensure_present(config)
    datasets, problems = _open(config)
    for split, dataset in datasets.items():
        problems += _undecodable(split, dataset)
    if settings.json:
        result_json(json.dumps({"splits": _counts(datasets), "problems": problems}))
    else:
        _print(datasets)
    for problem in problems:
        warn(problem)
    if problems:
        raise DataError(f"{settings.data}: {counted(len(problems), 'problem')}, named above")


def _open(config: DatasetConfig) -> tuple[dict[str, DetectionDataset], list[str]]:
    """The splits that can be opened, and what is wrong with the others."""
    datasets: dict[str, DetectionDataset] = {}
    problems: list[str] = []
    for split in SPLITS:
        if config.shapes is None and not getattr(config, split):
            continue
        try:
            datasets[split] = open_split(config, split)
        except DataError as error:
            problems += [f"{split}: {one}" for one in error.problems or (str(error),)]
    if "train" in datasets and not datasets["train"].num_boxes:
        problems.append("train: the training split has no boxes")
    return datasets, problems


def _undecodable(split: str, dataset: DetectionDataset) -> list[str]:
    problems = []
    for record in progress(dataset.records, len(dataset), split):
        try:
            decode_record(record)
        except DataError as error:
            problems.append(f"{split}: {error}")
    return problems


def _counts(datasets: dict[str, DetectionDataset]) -> dict[str, dict[str, object]]:
    """Per split: images, images without boxes, boxes per class, corrections made on reading."""
    return {
        split: {
            "pictures": len(dataset),
            "background": sum(not len(record.labels) for record in dataset.records),
            "boxes": {name: _boxes(dataset)[index] for index, name in dataset.names.items()},
            "notes": dataset.notes,
            "skipped": {str(path): reason for path, reason in dataset.skipped.items()},
        }
        for split, dataset in datasets.items()
    }


def _boxes(dataset: DetectionDataset) -> Counter[int]:
    return Counter(
        label for record in dataset.records for label in record.labels[~record.iscrowd].tolist()
    )


def _print(datasets: dict[str, DetectionDataset]) -> None:
    counts = _counts(datasets)
    for split, dataset in datasets.items():
        for note in dataset.notes:
            warn(f"{split}: {note}")
    names = next(iter(datasets.values())).names.values() if datasets else []
    rows: list[list[object]] = [
        ["images", *(len(dataset) for dataset in datasets.values())],
        ["without boxes", *(count["background"] for count in counts.values())],
    ]
    per_split = [_boxes(dataset) for dataset in datasets.values()]
    rows += [[name, *(boxes[i] for boxes in per_split)] for i, name in enumerate(names)]
    table("", ["", *datasets], rows)
