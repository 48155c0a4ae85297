"""The findings of `rtdetr check` on a page: a table of all, then each with its examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rtdetr_cli.core.files import tilde
from rtdetr_cli.core.findings import Example, Finding
from rtdetr_cli.report.images import ImageData
from rtdetr_cli.report.parts import Card, Cell, Html, Panel, gallery, heading, paragraph, table

MAX_CARDS = 12
"""Examples of one finding that are shown with images; the others are listed."""
MAX_IMAGES = 150
"""Images of a page."""
_LARGE = "large-screen"
_COLUMNS = ("severity", "finding", "splits", "places", Cell("what was found", _LARGE))

Draw = Callable[[Example], list[ImageData]]
"""From an example to its images with marked boxes; an empty list if there is nothing to show."""


def findings_parts(findings: Sequence[Finding], draw: Draw) -> Iterator[Html]:
    """All findings, in their order.

    Args:
        findings: the worst first.
        draw: makes the images of an example.
    """
    rows = [
        (_severity(one), one.id, ", ".join(one.splits), f"{one.count:,}", Cell(one.message, _LARGE))
        for one in findings
    ]
    yield table(_COLUMNS, rows, text_columns=(0, 1, 2, 4))
    left = MAX_IMAGES
    for finding in findings:
        cards, rest = _illustrated(finding, draw, left)
        left -= sum(len(card.panels) for card in cards)
        yield from _finding(finding, cards, rest)


def _illustrated(finding: Finding, draw: Draw, left: int) -> tuple[list[Card], list[Example]]:
    """Examples with images, at most `left` of these, and the examples that are only listed."""
    cards: list[Card] = []
    rest = []
    for example in finding.examples:
        images = draw(example) if left > 1 and len(cards) < MAX_CARDS else []
        if images:
            text = f"{tilde(example.where)}{example.what and f': {example.what}'}"
            cards.append(Card(text, tuple(map(Panel, images))))
            left -= len(images)
        else:
            rest.append(example)
    return cards, rest


def _finding(finding: Finding, cards: list[Card], rest: list[Example]) -> Iterator[Html]:
    yield heading(finding.id)
    splits = f" in {', '.join(finding.splits)}" if finding.splits else ""
    places = f"{finding.count:,} place{'s' * (finding.count != 1)}{splits}"
    yield paragraph(f"{finding.severity.value.capitalize()}, {places}", finding.severity.value)
    yield paragraph(finding.message)
    yield paragraph(f"To do: {finding.advice}")
    if cards:
        yield gallery(cards, small=True)
    if rest:
        listed = [(tilde(one.where), one.what) for one in rest]
        yield table(("where", "what"), listed, text_columns=(0, 1))
    more = finding.count - len(finding.examples)
    if more > 0:
        yield paragraph(f"and {more:,} more", "muted")


def _severity(finding: Finding) -> Cell:
    return Cell(finding.severity.value, finding.severity.value)
