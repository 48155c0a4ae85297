"""The table of epochs: aligned, at most 80 columns, a dash where nothing was measured."""

from __future__ import annotations

import pytest

from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.engine.training.epoch_table import EpochTable, epoch_lines

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
    assert skipped == "steps not finite and skipped: 2"


def test_undefined_scores_are_dashes() -> None:
    undefined = {"metrics/precision": float("nan"), "metrics/AP50": -1.0}  # no box to find
    (line,) = epoch_lines(ROW | METRICS | undefined, SETTINGS, with_header=False)
    assert line.split()[4:8] == ["-", "0.250", "-", "0.4322"]


def test_without_validation_there_are_no_scores() -> None:
    header, _ = epoch_lines(ROW, TrainSettings(data="x", val=False), with_header=True)
    assert header.split() == ["epoch", "giou", "vfl", "l1", "lr", "time", "wait"]


def test_the_header_comes_every_twenty_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    table = EpochTable()
    for epoch in range(1, 43):
        table.show(ROW | {"epoch": epoch}, SETTINGS)
    lines = capsys.readouterr().err.splitlines()
    assert [number for number, line in enumerate(lines) if "giou" in line] == [0, 21, 42]
    assert len(lines) == 45
