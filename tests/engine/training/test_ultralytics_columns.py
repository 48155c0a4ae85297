"""Scripts made for Ultralytics' results.csv find their columns in ours."""

from __future__ import annotations

import pytest

from rtdetr_cli.cli.main import run
from rtdetr_cli.engine.training.ultralytics_columns import ultralytics_rows
from tests.engine.test_train import command, read_rows

COLUMNS = [
    "epoch", "time", "train/giou_loss", "train/cls_loss", "train/l1_loss",
    "metrics/precision(B)", "metrics/recall(B)", "metrics/mAP50(B)", "metrics/mAP50-95(B)",
    "val/giou_loss", "val/cls_loss", "val/l1_loss", "lr/pg0", "lr/pg1", "lr/pg2",
]  # fmt: skip
"""Of Ultralytics 8.4.190 for an RT-DETR, in this order."""


def test_a_run_writes_their_columns_before_ours(tiny_yaml, squares, tmp_path):
    more = ("epochs=2", "ultralytics_csv", "loss=mal", "backbone_lr=1e-4", "lr=1e-3")
    assert run(command(tiny_yaml, squares, tmp_path, *more)) == 0
    first, row = read_rows(tmp_path / "train")
    assert list(row)[: len(COLUMNS)] == COLUMNS
    for theirs, ours in {
        "train/giou_loss": "train/loss_giou", "train/cls_loss": "train/loss_mal",
        "val/l1_loss": "val/loss_bbox", "metrics/mAP50(B)": "metrics/AP50",
        "metrics/mAP50-95(B)": "metrics/AP", "metrics/recall(B)": "metrics/recall",
        "lr/pg3": "lr",
    }.items():  # fmt: skip
        assert row[theirs] == row[ours], theirs
    assert float(row["lr/pg0"]) == pytest.approx(0.1 * float(row["lr"]), rel=1e-4)
    assert float(row["time"]) > float(row["epoch_time"]) > 0
    total = float(first["time"]) + float(row["epoch_time"])
    assert float(row["time"]) == pytest.approx(total, rel=1e-4)


def test_epochs_without_validation_lack_its_columns_and_rows_are_not_changed():
    rows = [{"epoch": 1, "time": 2.0, "train/loss_vfl": 0.5, "lr": 0.1}]
    written = ultralytics_rows(rows, [{"initial_lr": 0.0}])
    assert written == [
        {"epoch": 1, "time": 2.0, "train/cls_loss": 0.5, "lr/pg0": 0.0, "epoch_time": 2.0,
         "train/loss_vfl": 0.5, "lr": 0.1}
    ]  # fmt: skip
    assert rows == [{"epoch": 1, "time": 2.0, "train/loss_vfl": 0.5, "lr": 0.1}]
