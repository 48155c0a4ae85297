"""Results to stdout, talk to stderr, from the main process only, plain without a terminal."""

import io
import sys

import pytest

from rtdetr_cli.core.console import progress, result, say, table, warn

Captured = pytest.CaptureFixture[str]


def test_streams(capsys: Captured) -> None:
    say("training [bold]starts[/bold]")
    warn("no boxes")
    result("a line that is longer than eighty columns " * 3)
    out, err = capsys.readouterr()
    assert err == "training [bold]starts[/bold]\nWarning: no boxes\n"
    assert out == "a line that is longer than eighty columns " * 3 + "\n"


def test_only_the_main_process_speaks(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    say("x")
    result("x")
    table("t", ["a"], [["x"]])
    assert list(progress([1, 2], 2)) == [1, 2]
    assert capsys.readouterr() == ("", "")


def test_table_is_plain_and_whole(capsys: Captured) -> None:
    table("per class", ["class", "AP"], [["[red]" + "x" * 150, 0.5], ["cat", 1]])
    out = capsys.readouterr().out.splitlines()
    assert out[0].strip() == "per class"
    assert out[1].split() == ["class", "AP"]
    assert out[2].split() == ["[red]" + "x" * 150, "0.5"]
    assert "\x1b" not in "".join(out)


def test_progress_is_silent_without_a_terminal(capsys: Captured) -> None:
    assert list(progress(range(3), 3, "epoch")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    seen = []
    for item in progress(range(3), 3, lambda: f"loss [{len(seen)}]"):
        seen.append(item)
        say("a line above [the] bar")
    assert seen == [0, 1, 2]
    text = terminal.getvalue()
    assert "a line above [the] bar" in text
    assert "loss [3]" in text
    assert "3/3" in text
