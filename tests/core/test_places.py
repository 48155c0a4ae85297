"""Places and addresses named by strangers."""

from __future__ import annotations

import pytest

from rtdetr_cli.core.places import fault, folded
from rtdetr_cli.core.urls import ascii_url


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("..", "leads out"),
        ("a/../b", "leads out"),
        ("/a", "leads out"),
        ("C:a", "leads out"),
        ("a\\b", "leads out"),
        ("a\0", "control characters"),
        ("a\x1b[2J", "control characters"),
        ("a\udcff", "control characters"),
        ("ä" * 121, "too long"),
        ("a/" * 501, "too long"),
        ("a/NUL", "reserves"),
        ("com1 .txt/a", "reserves"),
        ("a./b", "ends in a dot"),
        ("a /b", "ends in a dot"),
    ],
)
def test_places_that_are_refused(place, reason):
    assert reason in fault(place)


@pytest.mark.parametrize("place", [".", "a/b", ".hidden/x", "ネコ\u3000 1.jpg", "console", "a..b"])
def test_places_that_are_not(place):
    assert fault(place) is None


def test_names_that_are_one_file_somewhere():
    assert folded("A/B.JPG") == folded("a/b.jpg")
    assert folded("caf\u00e9") == folded("CAFE\u0301")  # composed and decomposed
    assert folded("straße") == folded("STRASSE")
    assert folded("a") != folded("b")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        # RFC 3492 and 5891 give bcher-kva for bücher
        (
            "https://bücher.example/ä b.zip?q=ü#x",
            "https://xn--bcher-kva.example/%C3%A4%20b.zip?q=%C3%BC",
        ),
        ("http://h:80/a%20b/(1).zip?x=1&y=%2F", "http://h:80/a%20b/(1).zip?x=1&y=%2F"),
        ("HTTP://[::1]:8/x", "http://[::1]:8/x"),
    ],
)
def test_addresses_in_ascii(url, expected):
    assert ascii_url(url) == expected
    assert ascii_url(expected) == expected
