"""results.png: few panels with whole epochs, smoothed lines and validation losses."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtdetr_cli.engine.training.run_curves import draw_curves, plot_curves

LOSSES = ("Box loss (GIoU)", "Box loss (L1)", "Class loss")


def make_rows(epochs: int, val_every: int = 1) -> list[dict[str, float]]:
    """Losses that fall and an AP that rises, with a zigzag of 0.1."""
    rows = []
    for epoch in range(1, epochs + 1):
        value = 1 / epoch + 0.1 * (-1) ** epoch
        row = {"epoch": epoch, "time": 1.0, "lr": 1e-3, "train/loss": 20 + value}
        row |= {f"train/loss_{name}": value + 1 for name in ("vfl", "bbox", "giou")}
        if epoch % val_every == 0:
            row |= {f"val/loss_{name}": value + 2 for name in ("vfl", "bbox", "giou")}
            row |= {"metrics/AP": 1.2 - value, "metrics/AP50": 1.3 - value, "metrics/APs": -1.0}
            row |= {"metrics/APm": 0.2, "metrics/APl": 0.3}
            row |= {"metrics/precision": 0.5, "metrics/recall": math.nan}
        rows.append(row)
    return rows


def panels(rows):
    return {axes.get_title(loc="left"): axes for axes in draw_curves(rows).axes}


def test_a_run_has_eight_panels_and_losses_show_validation():
    found = panels(make_rows(4))
    assert len(found) == 8
    for title in LOSSES:
        train, val = found[title].get_lines()
        assert train.get_label() == "train"
        assert val.get_label() == "val"
        np.testing.assert_allclose(val.get_ydata() - train.get_ydata(), 1)


def test_losses_of_distributions_and_of_a_teacher_have_panels():
    rows = [
        row | {f"train/loss_{n}": 0.5 for n in ("fgl", "ddf", "distill")} for row in make_rows(4)
    ]
    found = panels(rows)
    assert len(found) == 10
    curves = found["Distribution losses"].get_lines()
    assert [curve.get_label() for curve in curves] == ["FGL", "DDF"]
    assert len(found["Distillation loss"].get_lines()) == 1


def test_undefined_values_are_not_drawn():
    found = panels(make_rows(4))
    assert [line.get_label() for line in found["AP by object size"].get_lines()] == [
        "medium",
        "large",
    ]
    assert [line.get_label() for line in found["Precision and recall"].get_lines()] == ["precision"]


@pytest.mark.parametrize("epochs", [1, 2, 9, 30, 301])
def test_ticks_are_whole_epochs_and_few(epochs):
    for axes in panels(make_rows(epochs)).values():
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert 1 <= len(ticks) <= 10
        assert all(tick == round(tick) for tick in ticks)


def test_long_runs_have_a_smoothed_line_beside_the_values():
    raw, smooth = panels(make_rows(60))["Loss of all layers"].get_lines()
    zigzag = [np.abs(np.diff(line.get_ydata()[20:40])).max() for line in (raw, smooth)]
    assert zigzag[0] > 0.19  # 0.1 up and 0.1 down
    assert zigzag[1] < 0.02
    assert smooth.get_linewidth() > raw.get_linewidth()
    assert len(panels(make_rows(9))["Loss of all layers"].get_lines()) == 1
    assert len(panels(make_rows(60))["Learning rate"].get_lines()) == 1  # without noise


def test_the_best_epoch_is_named():
    rows = make_rows(9)
    rows[4]["metrics/AP"] = 1.5
    assert panels(rows)["Average precision"].get_title(loc="right") == "best 1.500, epoch 5"


def test_a_run_that_finds_nothing_has_a_readable_axis():
    rows = [row | {"metrics/AP": 0.0, "metrics/AP50": 0.0} for row in make_rows(3)]
    axes = panels(rows)["Average precision"]
    assert axes.get_ylim() == (0, 1)
    assert axes.get_title(loc="right") == ""


def test_a_run_without_validation_lacks_its_panels(tmp_path: Path) -> None:
    rows = make_rows(3, val_every=4)
    assert set(panels(rows)) == {"Loss of all layers", *LOSSES, "Learning rate"}
    plot_curves(tmp_path / "results.png", rows)
    assert np.asarray(Image.open(tmp_path / "results.png")).std() > 5
    assert [path.name for path in tmp_path.iterdir()] == ["results.png"]
