"""Exit codes are those of the design; a hint names the nearest or nothing."""

import pytest

from rtdetr_cli.core import errors


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.UsageError, 2),
        (errors.ConfigError, 2),
        (errors.DataError, 3),
        (errors.WeightsError, 4),
        (errors.BackendError, 5),
        (errors.StorageError, 5),
    ],
)
def test_exit_codes(kind: type[errors.RTDETRError], code: int) -> None:
    assert issubclass(kind, errors.RTDETRError)
    assert kind.exit_code == code


def test_nearest() -> None:
    assert errors.nearest("num_query", ["num_queries", "num_layers"]) == (
        "; did you mean num_queries?"
    )
    assert errors.nearest("zzz", ["epochs"]) == ""


def test_what_a_stranger_wrote_becomes_one_printable_line() -> None:
    error = errors.DataError("x.pt wants \x1b[2J\nos.system" + "m" * 1000)
    assert str(error).startswith(r"x.pt wants \x1b[2J\nos.systemm")
    assert str(error).endswith("m...")
    assert len(str(error)) == 1000


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("käse 猫 👩\u200d🚀 می\u200cشود [red]",) * 2,
        ("\x1b]0;t\x07", r"\x1b]0;t\x07"),
        ("a\tb\r\nc\x7f", r"a\tb\r\nc\x7f"),
        ("\x9b31m", r"\x9b31m"),  # one-byte CSI of C1
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("a\u200bb\u2028\ufeff", r"a\u200bb\u2028\ufeff"),
        ("\udcff.jpg", r"\udcff.jpg"),  # a file name that is not UTF-8
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_a_terminal_would_act_upon_is_text(text: str, line: str) -> None:
    assert errors.printable(text) == line
    assert errors.printable(line) == line
    assert str(errors.UsageError(text)) == line
