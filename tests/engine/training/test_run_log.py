"""results.csv is complete after every epoch; the table of epochs is aligned, in 80 columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.engine.training.run_log import RunLog, epoch_lines

SETTINGS = TrainSettings(data="x", epochs=100)
ROW = {
    "epoch": 3,
    "time": 754.0,
    "train/loss": 21.5,
    "train/loss_vfl": 0.8126,
    "train/loss_bbox": 12.345,
    "train/loss_giou": 1.2346,
    "lr": 1e-4,
    "data_wait": 0.031,
}
METRICS = {
    "metrics/precision": 0.5,
    "metrics/recall": 0.25,
    "metrics/AP50": 0.75,
    "metrics/AP": 0.43216,
}


def test_the_columns_are_aligned_and_fit_80() -> None:
    header, line = epoch_lines(ROW | METRICS, SETTINGS, with_header=True)
    names = "epoch giou vfl l1 P R AP50 AP lr time wait"
    assert header.split() == names.split(" ")
    values = "3/100 1.235 0.813 12.35 0.500 0.250 0.750 0.4322 1.0e-04 12:34 3|%"
    assert line.split() == values.replace("|", " ").split()
    assert len(header) == len(line) <= 80
    ends = [header.index(name) + len(name) for name in ("giou", "l1", "AP50", "lr", "time")]
    assert [line[:end].split()[-1] for end in ends] == [
        "1.235",
        "12.35",
        "0.750",
        "1.0e-04",
        "12:34",
    ]


def test_an_epoch_without_validation_has_dashes_and_skipped_steps_are_named() -> None:
    line, skipped = epoch_lines(ROW | {"train/skipped": 2}, SETTINGS, with_header=False)
    assert line.split()[4:8] == ["-", "-", "-", "-"]
    assert skipped == "2 steps of it were not finite and skipped"


def test_undefined_scores_are_dashes() -> None:
    undefined = {"metrics/precision": float("nan"), "metrics/AP50": -1.0}  # no box to find
    (line,) = epoch_lines(ROW | METRICS | undefined, SETTINGS, with_header=False)
    assert line.split()[4:8] == ["-", "0.250", "-", "0.4322"]


def test_without_validation_there_are_no_scores() -> None:
    header, _ = epoch_lines(ROW, TrainSettings(data="x", val=False), with_header=True)
    assert header.split() == ["epoch", "giou", "vfl", "l1", "lr", "time", "wait"]


def test_the_header_comes_every_twenty_epochs(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    log = RunLog(tmp_path, [])
    for epoch in range(1, 43):
        log.show(ROW | {"epoch": epoch}, SETTINGS)
    lines = capsys.readouterr().err.splitlines()
    assert [number for number, line in enumerate(lines) if "giou" in line] == [0, 21, 42]
    assert len(lines) == 45


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
