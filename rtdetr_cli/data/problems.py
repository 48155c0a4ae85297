"""Problems of labels and images: corrected with a note, an error, or an image left out.

All readers (yolo.py, coco.py, voc.py) report to it, and every problem of a split is collected
before the command ends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.files import atomic_write
from rtdetr_cli.core.findings import Example, Finding
from rtdetr_cli.core.image import is_turned
from rtdetr_cli.core.status import counted
from rtdetr_cli.data.kinds import MAX_LISTED, make_finding

SKIPPED = "skipped.txt"
"""List of the images left out, in the run folder."""
_NOT_OPENED = {"image-missing", "image-unreadable"}
"""Kinds of which nothing of the image can be used."""

Size = tuple[int, int]


class LabelError(ValueError):
    """What is wrong with a label or an entry: the end of a sentence, and the kind of problem."""

    def __init__(self, text: str, kind: str = "label-malformed") -> None:
        super().__init__(text)
        self.kind = kind


@dataclass
class _Places:
    """Places of one kind of problem: the first ones, and the number of all."""

    count: int = 0
    examples: list[Example] = field(default_factory=list)

    def add(self, where: str, what: str = "", image: Path | None = None, count: int = 1) -> None:
        if len(self.examples) < MAX_LISTED:
            images = () if image is None else (image,)
            self.examples.append(Example(where, what, images))
        self.count += count


@dataclass
class Problems:
    """Collects the problems of a split.

    A problem has a kind (kinds.py), a place such as `labels/train/7.txt:3`, and what is wrong
    there. Both together are its sentence.

    Attributes:
        bad_images: error; skip: images with a problem are left out; report: errors of images are
            findings, and only the images that cannot be opened are left out; None: error, and the
            caller has no such key to name.
        errors: the first MAX_LISTED errors.
        count: number of errors.
        mended: corrected problems: first location and count.
        skipped: images left out, and the reason.
    """

    bad_images: str | None = None
    errors: list[str] = field(default_factory=list)
    count: int = 0
    mended: dict[str, tuple[str, int]] = field(default_factory=dict)
    skipped: dict[Path, str] = field(default_factory=dict)
    _of_images: int = 0
    _places: defaultdict[str, _Places] = field(default_factory=lambda: defaultdict(_Places))

    def add(self, kind: str, where: str, what: str, image: Path | None = None) -> None:
        """Record an error that the user must fix.

        Args:
            kind: its id.
            where: the place.
            what: the rest of the sentence, with its `:` or from `where: ` on.
            image: to show.
        """
        if self.count < MAX_LISTED:
            self.errors.append(_sentence(where, what))
        self.count += 1
        self._places[kind].add(where, what.lstrip(" :."), image)

    def reject(self, image: Path, kind: str, where: str, what: str) -> None:
        """Record why an image cannot be used: an error, or it is left out."""
        if self.bad_images == "skip":
            if image not in self.skipped:
                self.skipped[image] = _sentence(where, what)
                self._places["image-skipped"].add(str(image), self.skipped[image])
            return
        self.add(kind, where, what, None if kind in _NOT_OPENED else image)
        self._of_images += 1
        if kind in _NOT_OPENED and self.bad_images == "report":
            self.skipped[image] = _sentence(where, what)

    def mend(
        self, kind: str, where: str, what: str, image: Path | None = None, count: int = 1
    ) -> None:
        """Record a corrected problem; `what` is the note on all of its kind, `image` to show."""
        first, number = self.mended.get(what, (where, 0))
        self.mended[what] = (first, number + count)
        self._places[kind].add(where, image=image, count=count)

    def notes(self) -> list[str]:
        """Return a sentence per kind of corrected problem, and one about images left out."""
        notes = [f"{what}: {count} (first: {at})" for what, (at, count) in self.mended.items()]
        if self.skipped:
            first = next(iter(self.skipped.values()))
            notes.append(
                f"images left out by bad_images=skip: {len(self.skipped)} (first: {first})"
            )
        return notes

    def findings(self, origin: str = "") -> list[Finding]:
        """A finding per kind; `origin` is put before places that are no paths."""
        return [
            make_finding(kind, (), [_placed(one, origin) for one in found.examples], found.count)
            for kind, found in self._places.items()
        ]

    def raise_if_any(self, origin: str = "", is_fatal: bool = False) -> None:
        """Raise the first error, prefixed with `origin`; its `problems` has all of them.

        With bad_images=report only if it `is_fatal`, that is, nothing more can be read.
        """
        if not self.count or (self.bad_images == "report" and not is_fatal):
            return
        listed = [origin + sentence for sentence in self.errors]
        more = f" (and {counted(self.count - 1, 'more error')})" if self.count > 1 else ""
        if self.bad_images and self._of_images == self.count:
            more += "; bad_images=skip leaves such images out"
        error = DataError(listed[0] + more)
        if self.count > len(listed):
            listed.append(f"{origin}{self.count - len(listed)} more errors")
        error.problems = tuple(listed)
        error.findings = tuple(self.findings(origin))
        raise error


def _sentence(where: str, what: str) -> str:
    return where + what if what[:1] in {" ", ":", "."} else f"{where}: {what}"


def _placed(example: Example, origin: str) -> Example:
    is_path = Path(example.where).is_absolute()
    return example if is_path else replace(example, where=origin + example.where)


def unusable(kind: str, where: str, what: str, before: Sequence[Finding] = ()) -> DataError:
    """An error of a whole file or split, to raise; `before` was found in it."""
    error = DataError(_sentence(where, what))
    error.findings = (*before, make_finding(kind, (), [Example(where, what.lstrip(" :."))]))
    return error


def check_overhang(
    corners: Sequence[float], size_hw: Sequence[float], tolerance: float
) -> str | None:
    """Judge the part of a box outside the image.

    Args:
        corners: left, top, right, bottom; the box has an area.
        size_hw: of the image, in the same unit.
        tolerance: overhang of rounding, in the same unit.

    Returns:
        None, "clipped", or "outside" if that is more than half of it.
    """
    left, top, right, bottom = corners
    height, width = size_hw
    inside = max(min(right, width) - max(left, 0), 0) * max(min(bottom, height) - max(top, 0), 0)
    overhang = max(-left, -top, right - width, bottom - height)
    if inside <= 0 or (overhang > tolerance and inside < 0.5 * (right - left) * (bottom - top)):
        return "outside"
    return "clipped" if overhang > tolerance else None


CLIPPED = "boxes that overhang the image clipped to it"
"""Note on boxes of which at most half is outside."""


def check_size(image: Path, stated: Size | None, found: Size, problems: Problems) -> None:
    """Compare the size that annotations state, (height, width), with that of the upright image.

    The size of the file is used. Only one before the rotation by EXIF data is an error: the boxes
    are then those of another image.
    """
    if stated in {None, found}:
        return
    if stated == found[::-1] and is_turned(image):
        problems.reject(
            image,
            "image-size-unrotated",
            str(image),
            f"its annotations state {found[0]}x{found[1]} pixels, but its EXIF data turn "
            f"it to {found[1]}x{found[0]}, so the boxes do not fit the upright image; save the "
            "image without the EXIF rotation",
        )
    else:
        what = "sizes in the annotations that differ from the image, which is right"
        problems.mend("image-size-differs", str(image), what, image)


def write_skipped(run_dir: Path, skipped: dict[Path, str]) -> None:
    """Write a line `path<TAB>reason` for each image left out; none without such images."""
    if skipped:
        with atomic_write(run_dir / SKIPPED) as path:
            lines = [f"{image.absolute()}\t{reason}\n" for image, reason in skipped.items()]
            path.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
