"""Parts of a page: everything given is text, never markup."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest

from rtdetr_cli.report import parts
from rtdetr_cli.report.images import jpeg
from rtdetr_cli.report.parts import Card, Cell, Panel

HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "' onmouseover=alert(1) x='",
    "</style></title></textarea><!-- ]]> -->",
    "&lt;b&gt; &amp; &#x3c;",
    "right\u202eto left\u2066",
    "lone \ud800 surrogate",
    "line\nbreak\r\0\x1b[31m",
    "$policy ${body} %s {0}",
    "javascript:alert(1)",
]
IMAGE = jpeg(np.zeros((4, 6, 3), np.uint8))


class Reader(HTMLParser):
    """Collects elements with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def made_of(text: str) -> str:
    """Every part with the text in every place."""
    return "".join(
        [
            parts.heading(text),
            parts.paragraph(text),
            parts.facts([(text, text)]),
            parts.tiles([(text, text)]),
            parts.table([text, text], [[text, Cell(text, "error")]]),
            parts.charts([(text, IMAGE)]),
            parts.gallery([Card(text, (Panel(IMAGE, text),))]),
            parts.legend([((1, 2, 3), text)]),
        ]
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_adds_no_element_and_no_attribute(text):
    hostile, harmless = Reader(made_of(text)), Reader(made_of("name"))
    shape = [(tag, sorted(attributes)) for tag, attributes in hostile.elements]
    assert shape == [(tag, sorted(attributes)) for tag, attributes in harmless.elements]
    made_of(text).encode("utf-8")  # no lone surrogate is left
    assert not {"\u202e", "\u2066", "\0", "\x1b", "\r"} & set(hostile.text)


def test_text_is_kept_as_it_is():
    text = "<b> & \"quotes\" 'too', שלום, 猫, Schlüssel"
    assert Reader(parts.paragraph(text)).text == text
    alts = [a["alt"] for tag, a in Reader(parts.charts([(text, IMAGE)])).elements if tag == "img"]
    assert alts == [text]


def test_a_long_table_ends_with_the_number_of_rows_left_out():
    page = Reader(parts.table(["name"], [[str(row)] for row in range(parts.MAX_ROWS + 7)]))
    assert sum(tag == "tr" for tag, _ in page.elements) == parts.MAX_ROWS + 1
    assert page.text.endswith("and 7 more")


def test_columns_of_text_and_styled_cells_have_their_class():
    cells = [["error-id", Cell("error", "error"), "3"]]
    page = parts.table(["id", "severity", "count"], cells, text_columns=(0, 1))
    assert '<td class="text">error-id</td><td class="text error">error</td><td>3</td>' in page


def test_small_cards_are_wider_if_they_are_pairs():
    one, two = Card("a", (Panel(IMAGE),)), Card("b", (Panel(IMAGE), Panel(IMAGE)))
    assert 'class="gallery small"' in parts.gallery([one, one], small=True)
    assert 'class="gallery pairs"' in parts.gallery([one, two], small=True)
    assert 'class="gallery"' in parts.gallery([one, two])
