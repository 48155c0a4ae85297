"""The bar fits its texts to the width of the terminal and drops them from the right."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from rtdetr_cli.core.live_bar import LiveBar, fit
from rtdetr_cli.core.status import Status

STATUS = Status(
    above=("giou 1.234", "vfl 0.812", "l1 0.456", "53 boxes", "640 px", "4.10 GB", "wait 3 %"),
    beside=("2.31 it/s",),
    seconds_left=5025,
)


def lines(width: int, label: str = "epoch 3/100", status: Status = STATUS) -> list[str]:
    """What a terminal of this width shows."""
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    bar = LiveBar(console, label, total=120)
    bar.show(40, label, status)
    with console.capture() as captured:
        console.print(bar.get_renderable())
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_everything_is_shown_from_80_columns_on(width: int) -> None:
    above, below = lines(width)
    assert above == "  ".join(STATUS.above)
    assert below.startswith("epoch 3/100  ━")
    assert below.endswith("  40/120  2.31 it/s  eta 1:23:45")
    assert len(below) == min(width, 45 + 40)  # texts and gaps; the bar has at most 40


def test_a_narrow_terminal_drops_texts_from_the_right() -> None:
    above, below = lines(50)
    assert above == "giou 1.234  vfl 0.812  l1 0.456  53 boxes  640 px"
    assert below == "epoch 3/100  40/120  2.31 it/s  eta 1:23:45"  # no room for eight of the bar
    assert lines(30) == ["giou 1.234  vfl 0.812", "epoch 3/100  40/120  2.31 it/s"]
    assert lines(18) == ["giou 1.234", "epoch 3/100"]


@pytest.mark.parametrize("width", range(1, 60))
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    shown = lines(width, label="数据集 " * 9)
    assert len(shown) == 2
    assert all(cell_len(line) <= width for line in shown)


def test_a_bar_without_texts_shows_elapsed_and_remaining_time() -> None:
    (line,) = lines(80, "export", Status())
    assert line.startswith("export  ━")
    assert "40/120  0:00" in line


def test_the_first_text_is_cut() -> None:
    assert fit(("abcdef", "g"), 3) == "abc"
    assert fit(("ab", "cd", "e"), 6) == "ab  cd"
