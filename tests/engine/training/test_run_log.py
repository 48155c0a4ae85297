"""results.csv is complete after every epoch."""

from __future__ import annotations

from pathlib import Path

from rtdetr_cli.engine.training.run_log import RunLog


def test_a_column_that_starts_later_is_empty_before(tmp_path: Path) -> None:
    log = RunLog(tmp_path, [])
    log.append({"epoch": 1, "lr": 1e-4})
    log.append({"epoch": 2, "lr": 1e-5, "metrics/AP": 1 / 3})
    expected = "epoch,lr,metrics/AP\n1,0.0001,\n2,1e-05,0.333333\n"
    assert (tmp_path / "results.csv").read_text() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


def test_columns_are_translated_in_the_file_only(tmp_path: Path) -> None:
    rows = [{"epoch": 1.0}]
    log = RunLog(tmp_path, rows, lambda rows: [{"theirs": row["epoch"], **row} for row in rows])
    log.append({"epoch": 2.0})
    assert (tmp_path / "results.csv").read_text() == "theirs,epoch\n1,1\n2,2\n"
    assert rows == [{"epoch": 1.0}, {"epoch": 2.0}]
