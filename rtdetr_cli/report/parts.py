"""Parts of a page: text, tables, facts, charts, galleries. Each escapes what it is given.

`Html` is text that is escaped already; only the functions of this file make it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import NewType

from rtdetr_cli.core.errors import printable
from rtdetr_cli.report.images import ImageData

Html = NewType("Html", str)

MAX_ROWS = 2000
"""Rows of a table that are written; a line says how many more there are."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table with a style of page.css: error, warning, note, or large-screen.

    A column of large-screen, head included, is left out on a phone.
    """

    text: str
    style: str


@dataclass(frozen=True)
class Panel:
    """One image of a card.

    Attributes:
        image: its data.
        title: what it shows, above it; may be empty.
    """

    image: ImageData
    title: str = ""


@dataclass(frozen=True)
class Card:
    """One or more images side by side.

    Attributes:
        caption: below the images.
        panels: the images.
    """

    caption: str
    panels: tuple[Panel, ...]


def plain(text: str) -> Html:
    """Any text as HTML: control characters, bidi overrides and lone surrogates become visible."""
    return Html(escape(printable(text)))


def heading(text: str, level: int = 2) -> Html:
    """A heading of level 1 to 3."""
    return Html(f"<h{level}>{plain(text)}</h{level}>")


def paragraph(text: str, style: str = "") -> Html:
    """A paragraph; `style` is muted, remark or verdict."""
    return Html(f"<p{_class(style)}>{plain(text)}</p>")


def facts(pairs: Sequence[tuple[str, str]]) -> Html:
    """Names and values, one a line."""
    rows = "".join(f"<dt>{plain(name)}</dt><dd>{plain(value)}</dd>" for name, value in pairs)
    return Html(f'<dl class="facts">{rows}</dl>')


def tiles(pairs: Sequence[tuple[str, str]]) -> Html:
    """The numbers that matter most, large."""
    rows = (f"<div><dt>{plain(name)}</dt><dd>{plain(value)}</dd></div>" for name, value in pairs)
    return Html(f'<dl class="tiles">{"".join(rows)}</dl>')


def table(
    columns: Sequence[str | Cell],
    rows: Sequence[Sequence[str | Cell]],
    text_columns: Sequence[int] = (0,),
) -> Html:
    """A table.

    Args:
        columns: heads.
        rows: cells, at most MAX_ROWS rows are written.
        text_columns: positions of the columns that are left-aligned.
    """
    styles = ["text" if place in text_columns else "" for place in range(len(columns))]
    head = "".join(_cell(name, style, "th") for name, style in zip(columns, styles, strict=True))
    body = "\n".join(f"<tr>{''.join(map(_cell, row, styles))}</tr>" for row in rows[:MAX_ROWS])
    written = f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    more = len(rows) - MAX_ROWS
    note = paragraph(f"and {more} more", "muted") if more > 0 else ""
    return Html(f'<div class="scroll">{written}</div>{note}')


def charts(images: Sequence[tuple[str, ImageData]], wide: bool = False) -> Html:
    """Charts with their names, as many in a row as fit, or with `wide` one."""
    figures = (f"<figure>{_image(image, name)}</figure>" for name, image in images)
    return Html(f'<div class="charts{" wide" * wide}">{"".join(figures)}</div>')


def gallery(cards: Sequence[Card], small: bool = False) -> Html:
    """Cards below each other, or with `small` as many in a row as fit."""
    size = "pairs" if any(len(card.panels) > 1 for card in cards) else "small"
    figures = "\n".join(
        f'<figure><div class="panels">{"".join(map(_panel, card.panels))}</div>'
        f"<figcaption>{plain(card.caption)}</figcaption></figure>"
        for card in cards
    )
    return Html(f'<div class="gallery{f" {size}" * small}">\n{figures}\n</div>')


def legend(entries: Sequence[tuple[tuple[int, int, int], str]]) -> Html:
    """What the colors (red, green, blue) of boxes mean."""
    items = (
        '<li><svg viewBox="0 0 10 10" aria-hidden="true"><rect x="1.5" y="1.5" width="7" '
        f'height="7" fill="none" stroke="rgb{color}" stroke-width="3"/></svg>{plain(text)}</li>'
        for color, text in entries
    )
    return Html(f'<ul class="legend">{"".join(items)}</ul>')


def _class(style: str) -> str:
    return f' class="{escape(style)}"' if style else ""


def _cell(cell: str | Cell, style: str, tag: str = "td") -> str:
    text, more = (cell.text, cell.style) if isinstance(cell, Cell) else (cell, "")
    return f"<{tag}{_class(f'{style} {more}'.strip())}>{plain(text)}</{tag}>"


def _panel(panel: Panel) -> str:
    title = f"<span>{plain(panel.title)}</span>" if panel.title else ""
    return f"<div>{title}{_image(panel.image, panel.title)}</div>"


def _image(image: ImageData, alt: str) -> str:
    width, height = image.size_wh
    return f'<img src="{escape(image.uri)}" alt="{plain(alt)}" width="{width}" height="{height}">'
