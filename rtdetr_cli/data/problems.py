"""Problems of labels and images: corrected with a note, an error, or an image left out.

All readers (yolo.py, coco.py, voc.py) report to it, and every problem of a split is collected
before the command ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.files import atomic_write
from rtdetr_cli.core.image import is_turned
from rtdetr_cli.core.status import counted

MAX_LISTED = 1000
"""Errors that are kept; a damaged file may have millions."""
SKIPPED = "skipped.txt"
"""List of the images left out, in the run folder."""

Size = tuple[int, int]


@dataclass
class Problems:
    """Collects the problems of a split.

    Attributes:
        bad_images: error; skip: images with a problem are left out; None: error, and the caller
            has no such key to name.
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

    def add(self, sentence: str) -> None:
        """Record an error that the user must fix."""
        if self.count < MAX_LISTED:
            self.errors.append(sentence)
        self.count += 1

    def reject(self, image: Path, sentence: str) -> None:
        """Record why an image cannot be used: an error, or it is left out."""
        if self.bad_images == "skip":
            self.skipped.setdefault(image, sentence)
        else:
            self.add(sentence)
            self._of_images += 1

    def mend(self, where: str, what: str) -> None:
        """Record a corrected problem."""
        first, count = self.mended.get(what, (where, 0))
        self.mended[what] = (first, count + 1)

    def notes(self) -> list[str]:
        """Return a sentence per kind of corrected problem, and one about images left out."""
        notes = [f"{what}: {count} (first: {at})" for what, (at, count) in self.mended.items()]
        if self.skipped:
            first = next(iter(self.skipped.values()))
            notes.append(
                f"images left out by bad_images=skip: {len(self.skipped)} (first: {first})"
            )
        return notes

    def raise_if_any(self, origin: str = "") -> None:
        """Raise the first error, prefixed with `origin`; its `problems` has all of them."""
        if not self.count:
            return
        listed = [origin + sentence for sentence in self.errors]
        more = f" (and {counted(self.count - 1, 'more error')})" if self.count > 1 else ""
        if self.bad_images and self._of_images == self.count:
            more += "; bad_images=skip leaves such images out"
        error = DataError(listed[0] + more)
        if self.count > len(listed):
            listed.append(f"{origin}{self.count - len(listed)} more errors")
        error.problems = tuple(listed)
        raise error


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
            f"{image}: its annotations state {found[0]}x{found[1]} pixels, but its EXIF data turn "
            f"it to {found[1]}x{found[0]}, so the boxes do not fit the upright image; save the "
            "image without the EXIF rotation",
        )
    else:
        problems.mend(
            str(image), "sizes in the annotations that differ from the image, which is right"
        )


def write_skipped(run_dir: Path, skipped: dict[Path, str]) -> None:
    """Write a line `path<TAB>reason` for each image left out; none without such images."""
    if skipped:
        with atomic_write(run_dir / SKIPPED) as path:
            lines = [f"{image.absolute()}\t{reason}\n" for image, reason in skipped.items()]
            path.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
