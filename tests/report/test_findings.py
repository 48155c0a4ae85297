"""Findings on a page: all listed, images of bounded number, everything given is text."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from rtdetr_cli.core.findings import Example, Finding, Severity
from rtdetr_cli.report.findings import MAX_CARDS, MAX_IMAGES, findings_parts
from rtdetr_cli.report.images import jpeg

IMAGE = jpeg(np.zeros((4, 6, 3), np.uint8))


def finding(number_of_examples: int, images: int = 1, **fields) -> Finding:
    examples = tuple(
        Example(f"labels/{n}.txt:3", "x is nan", (Path(f"{n}.jpg"),) * images)
        for n in range(number_of_examples)
    )
    known = {"id": "box-nan", "severity": Severity.ERROR, "splits": ("train",), "count": 7}
    texts = {"message": "Boxes that are no number.", "advice": "Write numbers."}
    return Finding(**known | texts | {"examples": examples} | fields)


def page(findings: list[Finding], draw=None) -> str:
    return "\n".join(findings_parts(findings, draw or (lambda one: [IMAGE] * len(one.images))))


def test_a_finding_has_all_that_is_known_of_it():
    text = page([finding(2), finding(0, id="two", severity=Severity.NOTE, splits=(), count=1)])
    assert '<td class="text error">error</td><td class="text">box-nan</td>' in text
    assert '<p class="error">Error, 7 places in train</p>' in text
    assert '<p class="note">Note, 1 place</p>' in text
    assert "<p>To do: Write numbers.</p>" in text
    assert "<figcaption>labels/0.txt:3: x is nan</figcaption>" in text
    assert "and 5 more" in text
    assert text.count("<img ") == 2


def test_examples_without_images_are_listed():
    text = page([finding(3, images=0)])
    assert text.count("<img ") == 0
    assert re.findall(r"<td[^>]*>(labels/\d.txt:3)</td><td[^>]*>x is nan</td>", text) == [
        f"labels/{n}.txt:3" for n in range(3)
    ]
    undecodable = page([finding(3)], draw=lambda _: [])
    assert undecodable.count("x is nan") == 3


@pytest.mark.parametrize("images", [1, 2])
def test_the_number_of_images_is_bounded_and_no_example_is_lost(images):
    many = [finding(20, images) for _ in range(40)]
    text = page(many)
    assert MAX_IMAGES - 2 < text.count("<img ") <= MAX_IMAGES
    assert text.count("x is nan") == 40 * 20
    assert page(many[:1]).count("<img ") == MAX_CARDS * images


def test_hostile_texts_are_text():
    hostile = "<script>\u202e\ud800\"'"
    one = finding(0, id=hostile, splits=(hostile,), message=hostile, advice=hostile)
    example = Example(hostile, hostile, (Path(hostile),))
    text = page([one, finding(0, examples=(example, Example(hostile, hostile)))])
    assert "<script>" not in text
    assert "\u202e" not in text
    text.encode("utf-8")
    assert "&lt;script&gt;" in text
