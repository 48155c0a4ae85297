"""`ultralytics_csv=true`: results.csv with the columns of Ultralytics' RT-DETR before ours."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from rtdetr_cli.engine.training.run_log import Row

LOSSES = {
    "giou_loss": ("loss_giou",),
    "cls_loss": ("loss_vfl", "loss_mal"),
    "l1_loss": ("loss_bbox",),
}
METRICS = {
    "precision(B)": "precision",
    "recall(B)": "recall",
    "mAP50(B)": "AP50",
    "mAP50-95(B)": "AP",
}
"""Ultralytics' names of our columns, without the part before the slash."""


def ultralytics_rows(rows: list[Row], groups: list[dict[str, Any]]) -> list[Row]:
    """Rows of results.csv with the columns of Ultralytics first.

    Args:
        rows: with our columns.
        groups: of the optimizer, whose `initial_lr` have the ratios of the learning rates.

    Returns:
        The rows with `time` summed over the epochs, as there; `epoch_time` is ours.
    """
    base = groups[-1]["initial_lr"] or 1.0
    shares = [group["initial_lr"] / base for group in groups]
    totals = accumulate(row["time"] for row in rows)
    return [_translated(row, total, shares) for row, total in zip(rows, totals, strict=True)]


def _translated(row: Row, total: float, shares: list[float]) -> Row:
    losses = {
        part: {
            f"{part}/{theirs}": row[f"{part}/{name}"]
            for theirs, names in LOSSES.items()
            for name in names
            if f"{part}/{name}" in row
        }
        for part in ("train", "val")
    }
    metrics = {
        f"metrics/{theirs}": row[f"metrics/{ours}"]
        for theirs, ours in METRICS.items()
        if f"metrics/{ours}" in row
    }
    rates = {f"lr/pg{number}": row["lr"] * share for number, share in enumerate(shares)}
    theirs = losses["train"] | metrics | losses["val"] | rates
    ours = {name: value for name, value in row.items() if name not in {"epoch", "time"}}
    return {"epoch": row["epoch"], "time": total, **theirs, "epoch_time": row["time"], **ours}
