"""Results to stdout, talk to stderr, from the main process only, plain without a terminal."""

import io
import json
import sys

import pytest

from rtdetr_cli.core import console
from rtdetr_cli.core.console import error, progress, result, result_json, say, say_text, table, warn
from rtdetr_cli.core.status import Status

Captured = pytest.CaptureFixture[str]


def test_streams(capsys: Captured) -> None:
    say("training [bold]starts[/bold]")
    warn("no boxes")
    result("a line that is longer than eighty columns " * 3)
    out, err = capsys.readouterr()
    assert err == "training [bold]starts[/bold]\nWarning: no boxes\n"
    assert out == "a line that is longer than eighty columns " * 3 + "\n"


def test_long_lines_are_wrapped_between_words_on_a_terminal_only(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "recipe: cosine after 3 of 64 steps"
    monkeypatch.setenv("COLUMNS", "20")
    say_text(line)
    assert capsys.readouterr().err == f"{line}\n"
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    say_text(line, "short")
    assert terminal.getvalue() == "recipe: cosine after\n  3 of 64 steps\nshort\n"


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


def test_without_a_terminal_there_is_a_plain_line_every_ten_seconds(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(console, "clock", lambda: now[0])
    status = Status(("giou 1.234", "640 px"), ("2.31 it/s",))
    for _ in progress(range(6), 9, "epoch 3/100", lambda: status, done=3):
        now[0] += 4
    assert capsys.readouterr().err.splitlines() == [  # after 12 and 24 seconds; 4 s an item
        f"epoch 3/100, step {step}/9: giou 1.234, 640 px, 2.31 it/s, eta {left}"
        for step, left in ((6, "0:12"), (9, "0:00"))
    ]


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


def test_the_texts_beside_a_bar_are_asked_for_twice_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal, now, asked = Terminal(), [0.0], []
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(console, "clock", lambda: now[0])
    monkeypatch.setenv("TERM", "xterm")

    def status() -> Status:
        asked.append(now[0])
        return Status((f"loss {len(asked)}",), ("fast",))

    for _ in progress(range(8), 8, "epoch", status):
        now[0] += 0.2
    assert asked == pytest.approx([0.2, 0.8, 1.4])
    assert "loss 3" in terminal.getvalue()


HOSTILE = "a\x1b[31m\x9b2J\u202e\x7f\n[red]b"
SHOWN = r"a\x1b[31m\x9b2J\u202e\x7f\n[red]b"


def test_what_comes_from_outside_is_one_line_of_text(capsys: Captured) -> None:
    for write in (say, warn, error, result):
        write(HOSTILE)
    out, err = capsys.readouterr()
    assert err == f"{SHOWN}\nWarning: {SHOWN}\nError: {SHOWN}\n"
    assert out == f"{SHOWN}\n"


def test_results_may_have_many_lines(capsys: Captured) -> None:
    result("a", "b\nc")
    assert capsys.readouterr().out == "a\nb\\nc\n"


def test_table_cells_are_text(capsys: Captured) -> None:
    table("[b]t", ["[i]class"], [[HOSTILE]])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["[b]t", "[i]class", SHOWN]


@pytest.mark.parametrize("ensure_ascii", [True, False])
@pytest.mark.parametrize("text", [HOSTILE, "\U000e0041", "\udcff", "käse 猫\u200d"])
def test_json_has_the_same_values_and_no_control_characters(
    text: str, ensure_ascii: bool, capsys: Captured
) -> None:
    result_json(json.dumps({text: text}, ensure_ascii=ensure_ascii, indent=1))
    out = capsys.readouterr().out
    assert json.loads(out) == {text: text}
    assert out.replace("\n", "").replace("\u200d", "").isprintable()


def test_json_without_control_characters_is_not_changed(capsys: Captured) -> None:
    text = json.dumps({"käse": "猫", "path": "C:\\x1b"}, ensure_ascii=False, indent=2)
    result_json(text)
    assert capsys.readouterr().out == f"{text}\n"


class Gone(io.StringIO):
    """A stream whose other end is gone."""

    def write(self, _: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_log_output_that_nobody_reads_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Gone())
    say("epoch 1")


class HungUp(Terminal):
    """A terminal whose window was closed."""

    def write(self, _: str) -> int:
        raise OSError(5, "Input/output error")


def test_a_bar_on_a_terminal_that_was_closed_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", HungUp())
    monkeypatch.setenv("TERM", "xterm")
    for _ in progress(range(3), 3, "epoch"):
        say("above the bar")


def test_a_label_of_a_bar_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert list(progress(range(2), 2, "a\x1b]0;owned\x07")) == [0, 1]
    assert r"a\x1b]0;owned\x07" in terminal.getvalue()
    assert "\x1b]0" not in terminal.getvalue()
