"""Counts and durations as texts."""

import pytest

from rtdetr_cli.core.status import count, duration


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
