"""Check the files of the splits: every image is decoded; labels and images without each other."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from rtdetr_cli.core.console import progress
from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.findings import Example, Finding, Severity
from rtdetr_cli.core.image import Pixels, has_image_name, read_header
from rtdetr_cli.data.checks.similar import Signature, image_signature
from rtdetr_cli.data.dataset import DetectionDataset, Record
from rtdetr_cli.data.image_cache import decode_record
from rtdetr_cli.data.kinds import make_finding

MIN_SIDE = 32
"""Pixels; the smallest input of a network, where it sees one cell of the coarsest feature map."""
HUGE_PIXELS = 25e6
"""Pixels of an image: decoding a JPEG of this size took half a second, in every epoch."""
_SAME_FORMATS = [{"JPEG", "MPO"}, {"BMP", "DIB"}, {"PPM", "PFM"}]
"""Formats that share their suffixes."""
MAX_FIRST_LINE = 10_000
"""Bytes of a label file that are read to tell whether it is one."""

Splits = dict[str, DetectionDataset]


class _Facts(NamedTuple):
    """What decoding an image showed: why it failed, its signature, and what its header says."""

    failure: str | None
    signature: Signature | None = None
    is_blank: bool = False
    format: str = ""
    is_rotated: bool = False


def check_images(splits: Splits) -> tuple[list[Finding], dict[Path, Signature]]:
    """Decode every image, in threads; a file of several splits once.

    Returns:
        What was found, and the signatures of the images that can be decoded, for duplicates.py.
    """
    records = {record.path: record for one in splits.values() for record in one.records}
    pool = ThreadPoolExecutor()
    try:
        results = progress(pool.map(_inspect, records.values()), len(records), "images")
        facts = dict(zip(records, results, strict=True))
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C too
    findings = []
    for split, dataset in splits.items():
        examples: defaultdict[str, list[Example]] = defaultdict(list)
        wrong = _with_errors(dataset)
        for record in dataset.records:
            for kind, what in _problems(record, facts[record.path]):
                if kind == "image-rotated" and record.path in wrong:
                    continue
                shown = () if kind == "image-damaged" else (record.path,)
                examples[kind].append(Example(str(record.path), what, shown))
        findings += [make_finding(kind, (split,), found) for kind, found in examples.items()]
    signatures = {path: one.signature for path, one in facts.items() if one.signature}
    return findings, signatures


def _inspect(record: Record) -> _Facts:
    try:
        pixels, header = decode_record(record), read_header(record.path)
    except DataError as error:
        return _Facts(str(error).removeprefix(f"{record.path}: "))
    signature = image_signature(pixels)
    return _Facts(
        None, signature, _is_blank(pixels), header.format, header.orientation in range(2, 9)
    )


def _is_blank(pixels: Pixels) -> bool:
    return bool((pixels[0] == pixels[0, 0]).all() and (pixels == pixels[0, 0]).all())


def _problems(record: Record, facts: _Facts) -> list[tuple[str, str]]:
    """Kind and details of each problem of an image."""
    if facts.failure is not None:
        return [("image-damaged", facts.failure)]
    height, width = record.size_hw
    suffix = record.path.suffix.lower()
    found = {
        "image-blank": facts.is_blank,
        "image-tiny": min(height, width) < MIN_SIDE,
        "image-huge": height * width > HUGE_PIXELS,
        "image-rotated": facts.is_rotated and len(record.labels) > 0,
        "image-suffix-differs": not _is_usual(suffix, facts.format),
    }
    what = {
        "image-tiny": f"{width}x{height} pixels",
        "image-huge": f"{width}x{height} pixels",
        "image-suffix-differs": f"is {facts.format}",
    }
    return [(kind, what.get(kind, "")) for kind, applies in found.items() if applies]


def _is_usual(suffix: str, found: str) -> bool:
    """Whether a suffix is usual for a format; unknown to Pillow, as of HEIF, it is."""
    expected = Image.registered_extensions().get(suffix, found)
    return expected == found or any({expected, found} <= same for same in _SAME_FORMATS)


def check_label_files(splits: Splits) -> list[Finding]:
    """Find images without labels, labels without images, and images that are in no split."""
    findings = []
    known = {record.path for one in splits.values() for record in one.records}
    known |= {path for one in splits.values() for path in one.skipped}
    seen: set[Path] = set()
    for split, dataset in splits.items():
        findings += _without_boxes(split, dataset)
        if dataset.annotations is not None:
            kind, paths = "image-not-listed", _unlisted_images(dataset, known, seen)
        else:
            kind, paths = "label-without-image", _labels_alone(dataset, seen)
        if paths:
            shown = [Example(str(path), images=_if_image(path)) for path in paths]
            findings.append(make_finding(kind, (split,), shown))
    return findings


def _without_boxes(split: str, dataset: DetectionDataset) -> list[Finding]:
    """Images without boxes; an image in YOLO format may have no label file at all."""
    examples: defaultdict[str, list[Example]] = defaultdict(list)
    wrong = _with_errors(dataset)
    if dataset.num_boxes:  # else it is boxes-missing
        for record in dataset.records:
            if not len(record.labels) and record.path not in wrong:
                is_yolo = record.source.endswith(".txt:")
                has_file = not is_yolo or Path(record.source[:-1]).is_file()
                kind = "image-without-boxes" if has_file else "image-without-labels"
                examples[kind].append(Example(str(record.path), images=(record.path,)))
    return [make_finding(kind, (split,), found) for kind, found in examples.items()]


def _with_errors(dataset: DetectionDataset) -> set[Path]:
    """Images of which a label was rejected on reading."""
    errors = (one for one in dataset.findings if one.severity is Severity.ERROR)
    return {path for one in errors for example in one.examples for path in example.images}


def _if_image(path: Path) -> tuple[Path, ...]:
    return (path,) if has_image_name(path) else ()


def _unlisted_images(dataset: DetectionDataset, known: set[Path], seen: set[Path]) -> list[Path]:
    folders = {record.path.parent for record in dataset.records} - seen
    seen |= folders
    paths = (path for folder in sorted(folders) for path in sorted(folder.iterdir()))
    return [path for path in paths if has_image_name(path) and path not in known]


def _labels_alone(dataset: DetectionDataset, seen: set[Path]) -> list[Path]:
    """Label files in the folders of used ones, of which no image has the name."""
    image_folders: defaultdict[Path, set[Path]] = defaultdict(set)
    for record in dataset.records:
        if record.source:
            label = Path(record.source.rpartition(":")[0])
            image_folders[label.parent].add(record.path.parent)
    found: list[Path] = []
    for folder in sorted(image_folders.keys() - seen):
        if not folder.is_dir():
            continue
        seen.add(folder)
        stems = {
            path.stem
            for images in image_folders[folder]
            for path in images.iterdir()
            if has_image_name(path)
        }
        stems |= {path.stem for path in dataset.skipped}
        labels = (path for path in sorted(folder.iterdir()) if path.stem not in stems)
        found += [path for path in labels if _is_label(path)]
    return found


def _is_label(path: Path) -> bool:
    """Whether a file has a box: XML, or text that starts with at least five numbers.

    Beside labels there may be lists, as the classes.txt of labelImg.
    """
    if path.suffix == ".xml":
        return True
    if path.suffix != ".txt" or not path.is_file():
        return False
    with path.open("rb") as file:
        line = file.read(MAX_FIRST_LINE).lstrip().split(b"\n")[0]
    try:
        return len([float(word) for word in line.split()]) >= 5
    except ValueError:
        return False
