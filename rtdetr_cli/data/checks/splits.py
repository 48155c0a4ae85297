"""Check the splits against each other: classes, and files that are in two of them."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import combinations

import numpy as np

from rtdetr_cli.core.findings import MAX_EXAMPLES, Example, Finding, Severity
from rtdetr_cli.core.status import counted
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.kinds import make_finding

FEW_BOXES = 10
"""Boxes of a class to train on, below which its AP is noise: COCO's rarest class has 198."""
UNEVEN = 100
"""Ratio of the most to the least frequent class: COCO has 1,300, VOC 20. AP is the mean over
classes, so that the rare ones decide it."""
_BLANKS = re.compile(r"(?<=\w)[\s_-]+(?=\w)")

Splits = dict[str, DetectionDataset]


def check_splits(splits: Splits) -> list[Finding]:
    """Check the splits, opened, by name, against each other."""
    return [
        *_without_boxes(splits),
        *_other_names(splits),
        *_similar_names(splits),
        *_unused_classes(splits),
        *_rare_classes(splits),
        *_files_in_two(splits),
    ]


def _without_boxes(splits: Splits) -> list[Finding]:
    """Training refuses a split without boxes; validation has nothing to measure."""
    return [
        make_finding(
            "boxes-missing",
            (split,),
            [Example(str(dataset.records[0].path.parent), counted(len(dataset), "image"))],
            severity=None if split == "train" else Severity.WARNING,
        )
        for split, dataset in splits.items()
        if not dataset.num_boxes
    ]


def _other_names(splits: Splits) -> list[Finding]:
    """Classes that only some of the jsons list."""
    listed = {split: one.listed for split, one in splits.items() if one.listed is not None}
    examples = []
    for name in _names(splits):
        having = [split for split, names in listed.items() if name in names]
        if 0 < len(having) < len(listed):
            examples.append(Example(name, f"only in {' and '.join(having)}"))
    return _if_any("names-differ", listed, examples)


def _similar_names(splits: Splits) -> list[Finding]:
    alike: defaultdict[str, list[str]] = defaultdict(list)
    first = next(iter(splits.values()), None)  # all have the same
    for name in first.names.values() if first else ():
        alike[_BLANKS.sub("", name.strip()).casefold()].append(name)
    # Single letters are the classes of a reader of text, where case matters.
    groups = [names for key, names in alike.items() if len(names) > 1 < len(key)]
    examples = [Example(names[0], f"also {', '.join(names[1:])}") for names in groups]
    return _if_any("class-names-similar", splits, examples)


def _unused_classes(splits: Splits) -> list[Finding]:
    counts = {split: _counts(dataset) for split, dataset in splits.items()}
    names = _names(splits)
    total: Counter[str] = sum(counts.values(), Counter())
    unused = [Example(name) for name in names if not total[name]]
    findings = _if_any("class-unused", splits, unused)
    if not splits.get("train") or not counts["train"].total():
        return findings
    for split in [one for one in splits if one != "train"]:
        pairs = [(name, counts["train"][name], counts[split][name]) for name in names]
        untrained = [(name, number) for name, trained, number in pairs if number and not trained]
        untrained.sort(key=lambda one: -one[1])
        examples = [
            Example(name, f"{counted(number, 'box', 'boxes')} in {split}, none in train")
            for name, number in untrained
        ]
        findings += _if_any("class-not-in-train", ("train", split), examples)
        if split == "val" and counts[split].total():
            examples = [
                Example(name, f"{counted(trained, 'box', 'boxes')} in train, none in val")
                for name, trained, number in pairs
                if trained and not number
            ]
            findings += _if_any("class-not-in-val", ("train", split), examples)
    return findings


def _rare_classes(splits: Splits) -> list[Finding]:
    if "train" not in splits:
        return []
    ranked = _counts(splits["train"]).most_common()[::-1]
    few = [
        Example(name, counted(number, "box", "boxes"))
        for name, number in ranked
        if number < FEW_BOXES
    ]
    findings = _if_any("class-rare", ("train",), few)
    if ranked:
        most, largest = ranked[-1]
        uneven = [
            Example(name, f"{counted(number, 'box', 'boxes')}, {most} has {largest}")
            for name, number in ranked
            if number * UNEVEN <= largest
        ]
        findings += _if_any("class-imbalance", ("train",), uneven)
    return findings


def _files_in_two(splits: Splits) -> list[Finding]:
    places = {
        split: {os.path.abspath(record.path): record.path for record in dataset.records}  # noqa: PTH100
        for split, dataset in splits.items()
    }
    findings = []
    for one, other in combinations(places, 2):
        both = [path for key, path in places[one].items() if key in places[other]]
        examples = [Example(str(path), images=(path,)) for path in both[:MAX_EXAMPLES]]
        findings += _if_any("image-in-two-splits", (one, other), examples, len(both))
    return findings


def _names(splits: Splits) -> list[str]:
    return list(dict.fromkeys(name for one in splits.values() for name in one.names.values()))


def _counts(dataset: DetectionDataset) -> Counter[str]:
    """Boxes by class name, without crowd regions; classes without boxes are absent."""
    labels = np.concatenate(
        [np.zeros(0, np.int64), *(one.labels[~one.iscrowd] for one in dataset.records)]
    )
    numbers = np.bincount(labels, minlength=len(dataset.names)).tolist()
    counts: Counter[str] = Counter()
    for at, name in dataset.names.items():  # two may have one name
        counts[name] += numbers[at]
    return +counts


def _if_any(
    kind: str, splits: Iterable[str], examples: list[Example], count: int | None = None
) -> list[Finding]:
    return [make_finding(kind, tuple(splits), examples, count)] if examples else []
