"""Images of a report: ground truth and detections side by side, each box in its verdict's color."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rtdetr_cli.evaluation.image_scores import JudgedBox, Verdict
from rtdetr_cli.media.draw import Colour
from rtdetr_cli.media.thumbnails import Outline, Thumbnail, thumbnail
from rtdetr_cli.report.images import jpeg
from rtdetr_cli.report.parts import Card, Html, Panel, legend

Names = Mapping[int, str]

SIDE = 640
"""Length of the longer side of an image, pixels."""
COLORS: dict[Verdict, Colour] = {
    Verdict.RIGHT: (0, 158, 115),
    Verdict.MISSED: (86, 180, 233),
    Verdict.WRONG_CLASS: (240, 228, 66),
    Verdict.DUPLICATE: (204, 121, 167),
    Verdict.FALSE: (213, 94, 0),
    Verdict.IGNORED: (150, 150, 150),
}
"""Those of Okabe and Ito, which people who do not see all colors tell apart as well."""
_MEANING = {
    Verdict.RIGHT: "found, IoU 0.5 or more",
    Verdict.MISSED: "missed",
    Verdict.WRONG_CLASS: "right place, wrong class",
    Verdict.DUPLICATE: "second detection of a box",
    Verdict.FALSE: "false detection",
    Verdict.IGNORED: "crowd, ignored",
}
_WITHOUT_CAPTION = {Verdict.RIGHT, Verdict.IGNORED}


def verdict_legend() -> Html:
    """What the colors mean."""
    return legend([(COLORS[verdict], text) for verdict, text in _MEANING.items()])


def judged_card(
    caption: str, path: Path, panels: Sequence[tuple[str, Sequence[JudgedBox]]], names: Names
) -> Card:
    """An image once for each set of boxes, side by side.

    Args:
        caption: below the images.
        path: the image.
        panels: title and boxes of each.
        names: class index to name.

    Raises:
        DataError: the image cannot be decoded.
    """
    small = thumbnail(path, SIDE)
    return Card(caption, tuple(_panel(title, small, boxes, names) for title, boxes in panels))


def _panel(title: str, small: Thumbnail, boxes: Sequence[JudgedBox], names: Names) -> Panel:
    outlines = [
        Outline(one.corners, _caption(one, names), COLORS[one.verdict], _is_context(one))
        for one in boxes
    ]
    return Panel(jpeg(small.drawn(outlines)), title)


def _is_context(box: JudgedBox) -> bool:
    return box.verdict in _WITHOUT_CAPTION


def _caption(box: JudgedBox, names: Names) -> str:
    if _is_context(box):
        return ""
    return names[box.label] if box.score is None else f"{names[box.label]} {box.score:.2f}"
