"""The kinds of problems of a data set: id, how much it matters, what it is, what to do.

problems.py (while reading) and checks/ (on what was read) make findings of them; docs/datasets.md
has the table of all ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from rtdetr_cli.core.findings import MAX_EXAMPLES, Example, Finding, Severity

MAX_LISTED = 1000
"""Errors that are kept; a damaged file may have millions."""


class Kind(NamedTuple):
    """How much a problem matters, one sentence on what it is, and one on what to do."""

    severity: Severity
    message: str
    advice: str


def make_finding(
    kind: str,
    splits: Sequence[str],
    examples: Sequence[Example],
    count: int | None = None,
    severity: Severity | None = None,
) -> Finding:
    """Make a finding of a known kind.

    Args:
        kind: its id.
        splits: where it was found; empty while a split is read, which does not know its name.
        examples: the first, or the worst first. Of an error up to MAX_LISTED are kept, as each has
            to be corrected.
        count: number of places; None: each has its example.
        severity: if it is another one than usual.
    """
    usual, message, advice = KINDS[kind]
    severity = severity or usual
    kept = MAX_LISTED if severity is Severity.ERROR else MAX_EXAMPLES
    number = len(examples) if count is None else count
    return Finding(kind, severity, tuple(splits), message, number, tuple(examples[:kept]), advice)


def merge(findings: Iterable[Finding]) -> list[Finding]:
    """Join findings of one kind, severity and splits, as those of several files of a split."""
    joined: dict[tuple[str, Severity, tuple[str, ...]], list[Finding]] = {}
    for one in findings:
        joined.setdefault((one.id, one.severity, one.splits), []).append(one)
    return [
        make_finding(
            kind,
            splits,
            [example for part in parts for example in part.examples],
            sum(part.count for part in parts),
            severity,
        )
        for (kind, severity, splits), parts in joined.items()
    ]


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first; one finding for splits that have the same in the same files."""
    splits: dict[Finding, tuple[str, ...]] = {}
    for one in findings:
        key = replace(one, splits=())
        splits[key] = tuple(dict.fromkeys((*splits.get(key, ()), *one.splits)))
    joined = [replace(key, splits=where) for key, where in splits.items()]
    return sorted(joined, key=lambda one: list(Severity).index(one.severity))


_ERROR, _WARNING, _NOTE = Severity
_SPLITS = {
    "split-missing": Kind(
        _ERROR,
        "A file or folder of the split does not exist.",
        "Correct the path in the YAML, or put the files there.",
    ),
    "split-empty": Kind(
        _ERROR,
        "The split has no image that can be used.",
        "Put images there, or remove the split from the YAML.",
    ),
    "split-unusable": Kind(
        _ERROR, "The split cannot be read.", "Mend what the reason says, and check again."
    ),
    "names-missing": Kind(
        _ERROR, "The data set has no list of its classes.", "Add names: [...] to the YAML."
    ),
    "json-broken": Kind(
        _ERROR, "A json is damaged, or is not a COCO json.", "Export or copy the file again."
    ),
    "images-missing": Kind(
        _ERROR,
        "None of the listed images is found.",
        "Name the folder beside the json: train: [annotations.json, folder].",
    ),
    "labels-missing": Kind(
        _ERROR,
        "None of the images has a label file.",
        "Put labels/ beside images/, with the same file names and the suffix .txt.",
    ),
    "boxes-missing": Kind(
        _ERROR,
        "The split has no boxes.",
        "Check that the labels belong to these images, and that they are not empty.",
    ),
    "val-missing": Kind(
        _WARNING,
        "There is no val split.",
        "Add one, or train with val_fraction=0.1 (holds out a tenth) or val=false.",
    ),
    "jsons-joined": Kind(
        _NOTE, "Several jsons are read as one split.", "Nothing; images are numbered from 1."
    ),
}
_IMAGES = {
    "image-missing": Kind(
        _ERROR, "Listed images do not exist.", "Restore the files, or remove them from the list."
    ),
    "image-unreadable": Kind(
        _ERROR,
        "Files cannot be opened as images.",
        "Copy or export them again; bad_images=skip leaves them out.",
    ),
    "image-damaged": Kind(
        _ERROR,
        "Images open, but their pixels cannot be decoded.",
        "Copy them again, the end is often missing; bad_images=skip leaves them out.",
    ),
    "image-skipped": Kind(
        _WARNING, "Images are left out by bad_images=skip.", "Mend them as the reasons say."
    ),
    "image-entry-malformed": Kind(
        _ERROR, "Entries of `images` are malformed.", "Give each a file_name and an id."
    ),
    "image-id-repeated": Kind(
        _ERROR,
        "One image id is that of two files, so that boxes could belong to either.",
        "Number the images of merged jsons again, or list the jsons one by one in the YAML.",
    ),
    "image-listed-twice": Kind(
        _NOTE,
        "Images are listed more than once; each is taken once.",
        "Nothing, or clean the list.",
    ),
    "image-under-several-ids": Kind(
        _WARNING,
        "Files are listed under several image ids, each with a part of the boxes or a copy.",
        "Join the entries: the boxes that one of them lacks count as false detections.",
    ),
    "image-size-unrotated": Kind(
        _ERROR,
        "Annotations refer to images before their EXIF rotation.",
        "Save the images without the EXIF rotation, or annotate them as they are displayed.",
    ),
    "image-size-differs": Kind(
        _WARNING,
        "Annotations state another size than that of the image, which is used.",
        "Look at examples: if images were resized after annotation, the boxes do not fit.",
    ),
    "image-size-absent": Kind(
        _NOTE, "Annotations do not state the size of images.", "Nothing; it is read from the file."
    ),
    "image-rotated": Kind(
        _NOTE,
        "EXIF data rotate images, and labels refer to the image as it is displayed.",
        "Look at examples; if boxes are off, the labels were made without the rotation.",
    ),
    "image-tiny": Kind(
        _WARNING, "Images are very small.", "Remove thumbnails and icons that came in by mistake."
    ),
    "image-huge": Kind(
        _NOTE,
        "Images are very large, which slows down training and shrinks small objects.",
        "Cut them into tiles if objects are small, else scale them down once.",
    ),
    "image-blank": Kind(
        _WARNING,
        "Images have one color only.",
        "Remove them, or restore the originals.",
    ),
    "image-suffix-differs": Kind(
        _NOTE,
        "The suffix of images is not that of their format.",
        "Nothing for rtdetr, which reads the content; other tools may refuse them.",
    ),
    "image-in-two-splits": Kind(
        _WARNING,
        "The same file is in two splits, so that validation measures what was trained on.",
        "Remove it from one of them.",
    ),
    "image-without-boxes": Kind(
        _NOTE,
        "Images have no boxes; they are background.",
        "Nothing if they show no object; else label them.",
    ),
    "image-without-labels": Kind(
        _NOTE,
        "Images have no label file; they are background.",
        "Nothing if they show no object; else label them, or correct the names of their files.",
    ),
    "image-not-listed": Kind(
        _NOTE,
        "Images beside the listed ones are in no split.",
        "Nothing if that is meant; else add them to a json.",
    ),
    "image-with-many-boxes": Kind(
        _WARNING,
        "Images have more boxes than the model has queries, so that some are never found.",
        "Train a model with more num_queries (and max_det), or cut the images into tiles.",
    ),
}
_LABELS = {
    "label-unreadable": Kind(
        _ERROR, "Label files cannot be read.", "Save them again as UTF-8 text or as valid XML."
    ),
    "label-missing": Kind(
        _ERROR, "Listed images have no annotation file.", "Add the XML files, or shorten the list."
    ),
    "label-malformed": Kind(
        _ERROR, "Labels are malformed.", "Correct or remove these lines or entries."
    ),
    "label-without-image": Kind(
        _WARNING,
        "Label files have no image, so that they are not used.",
        "Restore the images, correct the names, or remove the label files.",
    ),
    "annotation-without-image": Kind(
        _ERROR, "Annotations belong to no listed image.", "Add the images, or remove the entries."
    ),
    "annotation-id-repeated": Kind(
        _NOTE, "Annotation ids repeat, as in merged jsons.", "Nothing; all are numbered again."
    ),
    "category-malformed": Kind(
        _ERROR, "Entries of `categories` are malformed.", "Give each an id and a name."
    ),
    "category-id-repeated": Kind(
        _ERROR, "One category id has two names.", "Number the categories again."
    ),
    "category-name-repeated": Kind(
        _ERROR, "Two categories have the same name.", "Join them, or rename one."
    ),
    "polygon-to-box": Kind(_NOTE, "Polygons are converted to their bounding boxes.", "Nothing."),
    "keypoints-unused": Kind(_NOTE, "Keypoints are not used.", "Nothing."),
}
_BOXES = {
    "box-not-finite": Kind(_ERROR, "Boxes have NaN or infinity.", "Correct or remove these boxes."),
    "box-negative": Kind(
        _ERROR, "Boxes have a negative width or height.", "Correct or remove these boxes."
    ),
    "box-outside-image": Kind(
        _ERROR,
        "Boxes are more than half outside of their image.",
        "Correct them: pixels instead of fractions, another image, or another format of boxes?",
    ),
    "box-clipped": Kind(
        _NOTE, "Boxes overhang their image, and are clipped to it.", "Nothing if it is little."
    ),
    "box-without-area": Kind(_NOTE, "Boxes without area are not trained on.", "Remove them."),
    "box-repeated": Kind(
        _NOTE, "Boxes are listed more than once; each is taken once.", "Remove the repeats."
    ),
    "box-near-identical": Kind(
        _WARNING,
        "Boxes of one class nearly coincide: probably one object that is labelled twice.",
        "Keep one of each pair; the other counts as missed.",
    ),
    "box-of-two-classes": Kind(
        _WARNING,
        "Boxes of two classes nearly coincide: probably one object with two labels.",
        "Keep the right class of each pair, unless the object is both.",
    ),
    "box-tiny": Kind(
        _WARNING,
        "Boxes are below two pixels at the input size, too small to be found.",
        "Train with a larger imgsz or on tiles, or remove them.",
    ),
}
_CLASSES = {
    "class-unknown": Kind(
        _ERROR,
        "Labels have a class that is not among the names.",
        "Correct the class (it is counted from 0), or add its name.",
    ),
    "class-unused": Kind(
        _NOTE, "Classes have no box in any split.", "Remove their names, or add examples."
    ),
    "class-not-in-train": Kind(
        _WARNING,
        "Classes have boxes in another split, but none to train on.",
        "Move images of these classes to train, or remove the classes.",
    ),
    "class-not-in-val": Kind(
        _NOTE,
        "Classes have boxes to train on, but none to validate with, so that AP ignores them.",
        "Move some images of these classes to val.",
    ),
    "class-rare": Kind(
        _NOTE, "Classes have few boxes to train on.", "Add examples of these classes."
    ),
    "class-imbalance": Kind(
        _NOTE,
        "Some classes have far more boxes than others.",
        "Look at AP per class; add examples of the rare ones if it is low.",
    ),
    "names-differ": Kind(
        _NOTE,
        "The jsons of the splits list different classes, which are matched by name.",
        "Nothing if a split only lacks a class; else give each class one name.",
    ),
    "class-names-similar": Kind(
        _WARNING,
        "Names of classes differ only in case, blanks or hyphens.",
        "If they are one class, give them one name.",
    ),
}
_DUPLICATES = {
    "image-leaked": Kind(
        _WARNING,
        "Images of the second split are copies of images of the first, so its scores are too good.",
        "Remove them from the first split, or write a cleaned copy with fix=out_dir.",
    ),
    "image-leaked-nearly": Kind(
        _WARNING,
        "Images of the second split look like images of the first, so its scores are too good.",
        "Remove them from the first split, or write a cleaned copy with fix=out_dir.",
    ),
    "image-identical": Kind(
        _WARNING,
        "Images have the same pixels as an earlier one of the split, and count twice.",
        "Keep one of each, or write a cleaned copy with fix=out_dir.",
    ),
    "image-near-identical": Kind(
        _WARNING,
        "Images look like an earlier one of the split: saved again, resized, brighter or mirrored.",
        "Keep one of each, unless it is augmentation or the frames of a video.",
    ),
    "label-conflict": Kind(
        _WARNING,
        "Images that repeat another one have other labels than it.",
        "Look at both, and give both the right labels.",
    ),
}
KINDS = {**_SPLITS, **_IMAGES, **_LABELS, **_BOXES, **_CLASSES, **_DUPLICATES}
"""All of them by id, but those of suspected label errors."""
