"""Counts and durations as texts."""

import pytest

from rtdetr_cli.core.status import count, counted, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (7.4, "0:07"),
        (59.6, "1:00"),
        (754, "12:34"),
        (3723, "1:02:03"),
        (1e6, "277:46:40"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_count_without_a_total() -> None:
    assert (count(40, 120), count(3, None)) == ("40/120", "3/?")


def test_one_thing_is_singular() -> None:
    assert [counted(number, "image") for number in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [counted(number, "box", "boxes") for number in (1, 2)] == ["1 box", "2 boxes"]
