"""Questions: asked in a terminal only, and no is the default."""

from __future__ import annotations

import io
import sys

import pytest

from rtdetr_cli.core.consent import ask, says_yes


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("y\n", True),
        ("YES\n", True),
        ("\n", False),
        ("n\n", False),
        ("yellow\n", False),
        ("", False),
    ],
)
def test_only_y_and_yes_agree(monkeypatch, typed, answer):
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert ask("download 2 GB\x1b[2J?") is answer
    assert sys.stderr.getvalue().rstrip("\n") == r"download 2 GB\x1b[2J? [y/N] "


@pytest.mark.parametrize("missing", ["stdin", "stderr", "worker", "closed"])
def test_nobody_is_asked_without_a_terminal(monkeypatch, missing):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n") if missing == "stdin" else Terminal("y\n"))
    monkeypatch.setattr(sys, "stderr", io.StringIO() if missing == "stderr" else Terminal())
    if missing == "worker":
        monkeypatch.setenv("RANK", "0")
    if missing == "closed":
        monkeypatch.setattr(sys, "stdin", None)
    assert ask("download 2 GB?") is None
    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize(("value", "answer"), [("1", True), ("0", False), ("False", False)])
def test_a_variable_answers_every_question(monkeypatch, value, answer):
    monkeypatch.delenv("RTDETR_YES", raising=False)
    assert not says_yes()
    monkeypatch.setenv("RTDETR_YES", value)
    assert says_yes() is answer
