"""Open all splits of a data set, with a finding for everything that is wrong on the way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from rtdetr_cli.config.dataset import SPLITS, DatasetConfig
from rtdetr_cli.config.settings.check import CheckSettings
from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.findings import Example, Finding, Severity
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.kinds import make_finding
from rtdetr_cli.data.splits import ensure_present, load_data, open_split

_ABOUT_ALL_SPLITS = {"class-unused", "image-not-listed"}
"""Findings that say that no split has something."""


def open_all(settings: CheckSettings) -> tuple[dict[str, DetectionDataset], list[Finding]]:
    """The splits that can be opened, and what their readers found in all of them.

    Images with an error are kept if they can be opened, unless bad_images=skip.

    Raises:
        DataError: the data set itself cannot be found or downloaded.
    """
    # Without "report", the first error of an image would end the reading of its split.
    mode = "report" if settings.bad_images == "error" else settings.bad_images
    config = load_data(settings.data, settings.download, mode)
    ensure_present(config)
    splits: dict[str, DetectionDataset] = {}
    findings: list[Finding] = []
    for split in filter(lambda split: _has(config, split), SPLITS):
        try:
            splits[split] = open_split(config, split)
            found: Iterable[Finding] = splits[split].findings
        except DataError as error:
            unknown = make_finding("split-unusable", (), [Example(settings.data, str(error))])
            found = error.findings or [unknown]
        findings += [replace(one, splits=(split,)) for one in found]
    if not _has(config, "val"):
        findings.append(make_finding("val-missing", ("val",), [Example(settings.data)]))
    return splits, findings


def certain(splits: dict[str, DetectionDataset], findings: list[Finding]) -> list[Finding]:
    """Leave out what a split that cannot be opened could refute."""
    errors = [one for one in findings if one.severity is Severity.ERROR]
    if all(split in splits for one in errors for split in one.splits):
        return findings
    return [one for one in findings if one.id not in _ABOUT_ALL_SPLITS]


def _has(config: DatasetConfig, split: str) -> bool:
    if config.shapes is not None:
        return bool(getattr(config.shapes, f"num_{split}"))
    return bool(getattr(config, split))
