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
    error = errors.WeightsError("x.pt wants \x1b[2J\nos.system" + "m" * 1000)
    assert str(error).startswith("x.pt wants  [2J os.systemm")
    assert str(error).endswith("m...")
    assert len(str(error)) == 600
    assert errors.printable("käse", 4) == "käse"
