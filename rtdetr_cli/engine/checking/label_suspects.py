"""Suspected label errors of a split, from the detections of a model, as places and findings.

evaluation/label_errors.py ranks them; engine/check.py runs the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.core.findings import MAX_EXAMPLES, Example, Finding, MarkedBox, Severity
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.selection import match_classes
from rtdetr_cli.evaluation.label_errors import Kind, Suspicion, label_errors
from rtdetr_cli.evaluation.matching import Floats, Found, Ints, Truth

TEXTS = {
    Kind.MISSING: (
        "The model is confident of objects that have no label.",
        "Label what is an object of the class.",
    ),
    Kind.SPURIOUS: (
        "Labels where the model finds nothing, though it finds most of their class and size.",
        "Remove labels of nothing; hard examples stay.",
    ),
    Kind.SWAP: (
        "Labels whose place the model confidently gives another class.",
        "Correct the class where the model is right.",
    ),
    Kind.SHIFTED: (
        "Boxes that fit badly: the model confidently finds the object beside, larger or smaller.",
        "Correct the box where that of the model is better.",
    ),
}
"""Message and advice of the finding of each kind."""
MIN_SHARE_FOUND = 0.5
"""A model that finds less than this share of the labels is no judge of them."""
_ORDER = "The most suspicious come first; json=true lists all of them in one order."


class Suspect(NamedTuple):
    """One suspected label error: its kind, score in 0..1, split, and where it is."""

    kind: Kind
    score: float
    split: str
    example: Example


def find_suspects(
    split: str, dataset: DetectionDataset, found: Found, model_names: dict[int, str]
) -> tuple[list[Suspect], list[Finding]]:
    """Rank the suspected label errors of a split.

    Args:
        split: its name.
        dataset: its labels.
        found: all detections in its images, in the classes of the model.
        model_names: class index to name in the model.

    Returns:
        The suspects, and findings if names of the data set are not those of the model, or if it
        finds few of the labels. Labels of classes that the model does not know are left alone, and
        so is what it finds there.
    """
    index_in_model = _match(dataset, model_names)
    findings = _differing_names(split, dataset, model_names, index_in_model)
    truth = _truth(dataset, index_in_model)
    found = found.keep(np.isin(found.classes, index_in_model))
    describe = _Places(split, dataset, truth, found, index_in_model)
    errors = label_errors(found, truth)
    if errors.share_found < MIN_SHARE_FOUND:
        findings.append(_disagrees(split, errors.share_found))
    return [describe(one) for one in errors.suspicions], findings


def as_findings(suspects: Sequence[Suspect]) -> list[Finding]:
    """A finding per kind, of all splits together, in the order of the suspects."""
    findings = []
    for kind, (message, advice) in TEXTS.items():
        mine = [one for one in suspects if one.kind is kind]
        if mine:
            splits = tuple(dict.fromkeys(one.split for one in mine))
            examples = tuple(one.example for one in mine[:MAX_EXAMPLES])
            findings.append(
                Finding(
                    kind.value,
                    Severity.WARNING,
                    splits,
                    message,
                    len(mine),
                    examples,
                    f"{advice} {_ORDER}",
                )
            )
    return findings


def usable(dataset: DetectionDataset, split: str, findings: Iterable[Finding]) -> DetectionDataset:
    """The images of a split without an error: only these can be read, and are worth a search."""
    bad = {
        image
        for one in findings
        if one.severity is Severity.ERROR and split in one.splits
        for example in one.examples
        for image in example.images
    }
    return replace(dataset, records=[one for one in dataset.records if one.path not in bad])


def _match(dataset: DetectionDataset, model_names: dict[int, str]) -> Ints:
    """(K,) index in the model of each class of the data set; -1: the model does not know it."""
    bare = replace(dataset, records=[], annotations=None)
    try:
        is_by_number = match_classes(bare, model_names) is bare
    except UsageError:  # it knows none of them, and no label is judged
        is_by_number = False
    if is_by_number:
        return np.arange(len(dataset.names), dtype=np.int64)
    index_of = {name: index for index, name in model_names.items()}
    return np.array([index_of.get(name, -1) for name in dataset.names.values()], np.int64)


def _differing_names(
    split: str, dataset: DetectionDataset, model_names: dict[int, str], index_in_model: Ints
) -> list[Finding]:
    """A finding on classes that the model does not know, or knows under another name."""
    examples = []
    for name, index in zip(dataset.names.values(), index_in_model.tolist(), strict=True):
        if index < 0:
            examples.append(Example(name, "the model does not know it; its labels are not judged"))
        elif model_names[index] != name:
            other = f"the class of this number is {model_names[index]!r} in the model"
            examples.append(Example(name, f"{other}, and taken to be the same"))
    if not examples:
        return []
    return [
        Finding(
            "model-names-differ",
            Severity.WARNING,
            (split,),
            "Names of classes in the data set are not those of the model.",
            len(examples),
            tuple(examples[:MAX_EXAMPLES]),
            "Use a model that was trained on these classes, or rename those that are the same.",
        )
    ]


def _disagrees(split: str, share_found: float) -> Finding:
    what = f"the model agrees with {share_found:.0%} of the labels"
    return Finding(
        "model-finds-few",
        Severity.WARNING,
        (split,),
        "The model does not find most of the labels, so that its suspicions are mostly its own "
        "errors.",
        1,
        (Example(split, what),),
        "Use a better model; if it is good, check that names are in the order of the class ids.",
    )


def _truth(dataset: DetectionDataset, index_in_model: Ints) -> Truth:
    """The labels in the classes of the model; those that it does not know are ignored as crowds."""
    records = dataset.records
    corners = np.concatenate([np.zeros((0, 4)), *(one.boxes_xyxy for one in records)])
    labels = np.concatenate([np.zeros(0, np.int64), *(one.labels for one in records)])
    crowd = np.concatenate([np.zeros(0, np.bool_), *(one.iscrowd for one in records)])
    images = np.repeat([one.image_id for one in records], [len(one.labels) for one in records])
    sizes = corners[:, 2:] - corners[:, :2]
    classes = index_in_model[labels]
    return Truth(
        images=images.astype(np.int64),
        classes=np.maximum(classes, 0),
        boxes_xywh=np.hstack([corners[:, :2], sizes]),
        crowd=crowd | (classes < 0),
        areas=sizes.prod(axis=1),
    )


class _Places:
    """Turns suspicions into suspects with file, names and boxes."""

    def __init__(
        self,
        split: str,
        dataset: DetectionDataset,
        truth: Truth,
        found: Found,
        index_in_model: Ints,
    ) -> None:
        self._split, self._truth, self._found = split, truth, found
        self._records = {record.image_id: record for record in dataset.records}
        self._in_record = [i for record in dataset.records for i in range(len(record.labels))]
        self._names = dict(zip(index_in_model.tolist(), dataset.names.values(), strict=True))

    def __call__(self, one: Suspicion) -> Suspect:
        truth, found = self._truth, self._found
        boxes, image, where = [], 0, ""
        if one.detection is not None:
            image = int(found.images[one.detection])
            where = str(self._records[image].path)
            name = self._names[int(found.classes[one.detection])]
            caption = f"model {name} {found.scores[one.detection]:.2f}"
            boxes = [_marked(found.boxes_xywh[one.detection], caption, one.box is None)]
        if one.box is not None:
            image = int(truth.images[one.box])
            where = self._records[image].place_of(self._in_record[one.box])
            caption = f"label {self._names[int(truth.classes[one.box])]}"
            boxes.insert(0, _marked(truth.boxes_xywh[one.box], caption, is_suspect=True))
        texts = [f"{box.caption} at {_rounded(box.corners)}" for box in boxes]
        path = self._records[image].path
        in_image = "" if path.stem in where else f" in {path.name}"
        what = f"suspicion {one.score:.2f}{in_image}: {', '.join(texts)}"
        example = Example(where, what, (path,), tuple(boxes))
        return Suspect(one.kind, one.score, self._split, example)


def _marked(box_xywh: Floats, caption: str, is_suspect: bool) -> MarkedBox:
    x, y, w, h = box_xywh.tolist()
    return MarkedBox((x, y, x + w, y + h), caption, is_suspect)


def _rounded(corners: tuple[float, ...]) -> str:
    return ",".join(f"{value:.0f}" for value in corners)
