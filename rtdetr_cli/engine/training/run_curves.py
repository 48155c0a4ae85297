"""results.png: losses, accuracy and learning rate of a training over its epochs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d

from rtdetr_cli.engine.training.run_log import Row
from rtdetr_cli.evaluation.figures import plain_axes, save_figure
from rtdetr_cli.evaluation.matching import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#1d4ed8", "#d9480f", "#0f766e")
_COLUMNS = 4
_FEWEST_SMOOTHED = 10
"""Values from which on a curve is smoothed: fewer are read as they are."""
_SMOOTHING = 1 / 30
"""Standard deviation of the smoothing, as a share of the number of values."""


class _Panel(NamedTuple):
    """One plot: its title, the name and column of results.csv of each curve."""

    title: str
    curves: dict[str, str]
    starts_at_zero: bool = True


def plot_curves(path: Path, rows: list[Row]) -> None:
    """Draw results.png from the rows of results.csv.

    Raises:
        StorageError: no space left or no permission.
    """
    save_figure(path, draw_curves(rows), dpi=120)


def draw_curves(rows: list[Row]) -> Figure:
    """A figure with a panel for each loss, accuracy and the learning rate."""
    from matplotlib.figure import Figure

    panels = _panels(rows)
    height = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(4 * _COLUMNS, 3.4 * height))
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    for number, panel in enumerate(panels, start=1):
        _draw_panel(figure.add_subplot(height, _COLUMNS, number), panel, rows)
    figure.supxlabel("epoch", fontsize=10)
    return figure


def _panels(rows: list[Row]) -> list[_Panel]:
    """The panels whose columns have values.

    Eight, fewer without a validation, more with distributions or a teacher.
    """
    columns = {column for row in rows for column in row}
    classification = "mal" if "train/loss_mal" in columns else "vfl"
    names = {"giou": "Box loss (GIoU)", "bbox": "Box loss (L1)", classification: "Class loss"}
    wanted = [
        _Panel("Loss of all layers", {"train": "train/loss"}, starts_at_zero=False),
        *(
            _Panel(title, {"train": f"train/loss_{name}", "val": f"val/loss_{name}"}, False)
            for name, title in names.items()
        ),
        _Panel("Distribution losses", {n.upper(): f"train/loss_{n}" for n in ("fgl", "ddf")}),
        _Panel("Distillation loss", {"train": "train/loss_distill"}),
        _Panel("Average precision", {"AP": "metrics/AP", "AP50": "metrics/AP50"}),
        _Panel("Precision and recall", {n: f"metrics/{n}" for n in ("precision", "recall")}),
        _Panel("AP by object size", {n: f"metrics/AP{n[0]}" for n in ("small", "medium", "large")}),
        _Panel("Learning rate", {"lr": "lr"}),
    ]
    return [panel for panel in wanted if columns & set(panel.curves.values())]


def _draw_panel(axes: Axes, panel: _Panel, rows: list[Row]) -> None:
    from matplotlib.ticker import MaxNLocator

    plain_axes(axes)
    axes.set_title(panel.title, loc="left", fontsize=11, fontweight="bold")
    for color, (name, column) in zip(_COLOURS, panel.curves.items(), strict=False):
        _draw_curve(axes, rows, column, name, color)
    axes.set_xlim(0.5, rows[-1]["epoch"] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(9, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter("{x:g}")
    if panel.starts_at_zero:
        axes.set_ylim(0, 1.08 * axes.dataLim.y1 if axes.dataLim.y1 > 0 else 1)
    if len(panel.curves) > 1:
        axes.legend(frameon=False, fontsize=9)


def _draw_curve(axes: Axes, rows: list[Row], column: str, name: str, color: str) -> None:
    """The values as they are; from ten on pale, under a smoothed line."""
    points = [(row["epoch"], row[column]) for row in rows if column in row]
    known = np.array([(epoch, value) for epoch, value in points if _is_known(value)])
    if not len(known):
        return
    epochs, values = known.T
    is_smoothed = len(values) >= _FEWEST_SMOOTHED and column != "lr"  # which has no noise
    axes.plot(
        epochs,
        values,
        color=color,
        linewidth=1 if is_smoothed else 2,
        alpha=0.4 if is_smoothed else 1,
        marker="." if len(values) <= 2 * _FEWEST_SMOOTHED else None,
        label=None if is_smoothed else name,
    )
    if is_smoothed:
        smooth = gaussian_filter1d(values, max(1, len(values) * _SMOOTHING), mode="nearest")
        axes.plot(epochs, smooth, color=color, linewidth=2, label=name)
    if column == "metrics/AP" and values.max() > 0:
        _mark_best(axes, epochs, values, color)


def _is_known(value: float) -> bool:
    """Whether a value is finite and not COCO's -1 for undefined."""
    return bool(np.isfinite(value)) and value >= 0


def _mark_best(axes: Axes, epochs: Floats, values: Floats, color: str) -> None:
    best = values.argmax()
    axes.plot(epochs[best], values[best], "o", color=color, markeredgecolor="white")
    axes.set_title(
        f"best {values[best]:.3f}, epoch {epochs[best]:.0f}", loc="right", fontsize=9, color=color
    )
