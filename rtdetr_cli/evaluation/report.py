"""Images of a validation (curves, reliability, confusion matrices) and of a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtdetr_cli.evaluation.calibration import Reliability
from rtdetr_cli.evaluation.figures import (
    ACCENT,
    INK,
    MUTED,
    TINT,
    canvas,
    plain_axes,
    save_figure,
    short_name,
    write_title,
)
from rtdetr_cli.evaluation.matching import CONFIDENCES
from rtdetr_cli.evaluation.metrics import Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

_MAX_NAMED_CURVES = 20


class _CurvePlot(NamedTuple):
    """A plot of curves: a line per class present, and the mean on top."""

    axes: tuple[str, str]
    x: Floats
    lines: Floats
    notes: list[str]
    mean_note: str
    best: int | None = None


def save_plots(run_dir: Path, metrics: Metrics) -> list[Path]:
    """Write the four curve images and both confusion matrices into a run folder.

    Returns:
        Paths of the six PNG files.

    Raises:
        StorageError: no space left or no permission.
    """
    figures = curve_figures(metrics)
    for name, figure in figures.items():
        save_figure(run_dir / f"{name}.png", figure)
    matrices = [metrics.confusion_matrix.plot(normalize, run_dir) for normalize in (False, True)]
    return [*(run_dir / f"{name}.png" for name in figures), *matrices]


def curve_figures(metrics: Metrics, size: tuple[float, float] = (9, 5.5)) -> dict[str, Figure]:
    """The four curves by the name of their file, without its suffix; size in inches."""
    plots = {
        "BoxPR_curve": _precision_recall(metrics),
        "BoxF1_curve": _by_confidence("F1", metrics),
        "BoxP_curve": _by_confidence("Precision", metrics),
        "BoxR_curve": _by_confidence("Recall", metrics),
    }
    return {name: _draw_curves(plot, metrics, size) for name, plot in plots.items()}


def save_reliability(path: Path, given: Reliability) -> None:
    """Write `reliability_figure`.

    Raises:
        StorageError: no space left or no permission.
    """
    save_figure(path, reliability_figure(given))


def reliability_figure(given: Reliability, size: tuple[float, float] = (6.5, 5.5)) -> Figure:
    """Precision by score, beside the line of scores that are probabilities; size in inches."""
    figure, axes = canvas(*size)
    _set_up(axes, ("Score", "Precision"))
    axes.plot((0, 1), (0, 1), color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
    if given.bins:
        width = 0.9 * (given.bins[0].high - given.bins[0].low)
        precision = [one.precision for one in given.bins]
        axes.bar([(one.low + one.high) / 2 for one in given.bins], precision, width, color=TINT)
        scores = [one.score for one in given.bins]
        line = axes.plot(scores, precision, color=ACCENT, linewidth=2, marker="o", markersize=5)
        note = f"ECE {given.ece:.3f}, {len(given.scores)} detections"
        axes.legend(line, [note], loc="upper left", frameon=False, labelcolor=INK)
    else:
        axes.text(0.5, 0.5, "no detections", ha="center", va="center", color=MUTED)
    return figure


def save_tradeoff(path: Path, points: list[tuple[str, float, float]], y_name: str) -> None:
    """Plot latency against accuracy of each format of a benchmark.

    Args:
        path: the PNG file.
        points: name, latency in milliseconds and what is on the y axis.
        y_name: what that is.

    Raises:
        StorageError: no space left or no permission.
    """
    figure, axes = canvas(9, 5.5)
    write_title(axes, f"{y_name} by latency", "one image, median")
    axes.set_xlabel("Latency, ms", color=INK)
    axes.set_ylabel(y_name, color=INK)
    plain_axes(axes)
    for name, latency_ms, value in points:
        axes.plot(latency_ms, value, "o", color=ACCENT, markersize=7)
        axes.annotate(
            name,
            (latency_ms, value),
            xytext=(7, 5),
            textcoords="offset points",
            color=INK,
            fontsize=9,
        )
    axes.margins(0.15)
    axes.set_xlim(left=0)
    save_figure(path, figure)


def _precision_recall(metrics: Metrics) -> _CurvePlot:
    lines = metrics.box.precision_at_recall[metrics.box.ap_class_index]
    notes = [f"{value:.3f}" for value in metrics.box.ap50]
    recall_levels = np.linspace(0, 1, lines.shape[1])
    mean_note = f"{metrics.box.map50:.3f} AP50"
    return _CurvePlot(("Recall", "Precision"), recall_levels, lines, notes, mean_note)


def _by_confidence(name: str, metrics: Metrics) -> _CurvePlot:
    """Curves per class over confidence; F1 also lists the best confidence of each class."""
    curves = metrics.box.by_confidence
    lines = {"F1": curves.f1, "Precision": curves.precision, "Recall": curves.recall}[name]
    lines = lines[curves.present]
    notes = [f"{value:.2f}" for value in lines[:, curves.best]]
    if name == "F1":
        thresholds = curves.best_confidence_per_class[curves.present]
        peaks = zip(lines.max(axis=1), thresholds, strict=True)
        notes = [f"{value:.2f} at {threshold:.3f}" for value, threshold in peaks]
    mean = lines[:, curves.best].sum() / max(len(lines), 1)
    mean_note = f"{mean:.2f} at {curves.best_confidence:.3f}"
    return _CurvePlot(("Confidence", name), CONFIDENCES, lines, notes, mean_note, curves.best)


def _draw_curves(plot: _CurvePlot, metrics: Metrics, size: tuple[float, float]) -> Figure:
    from matplotlib import colormaps

    figure, axes = canvas(*size)
    _set_up(axes, plot.axes)
    if not len(plot.lines):
        axes.text(0.5, 0.5, "no ground truth", ha="center", va="center", color=MUTED)
        return figure
    names = [metrics.names[index] for index in metrics.box.ap_class_index]
    named = len(names) <= _MAX_NAMED_CURVES
    palette = colormaps["tab10" if len(names) <= 10 else "tab20"]
    handles, labels = [], []
    for number, (line, name, note) in enumerate(zip(plot.lines, names, plot.notes, strict=True)):
        color = palette(number % palette.N) if named else MUTED
        handles += axes.plot(plot.x, line, color=color, linewidth=1.2 if named else 0.5, alpha=0.8)
        labels.append(f"{short_name(name)}  {note}")
    mean = plot.lines.mean(axis=0)
    mean_handle = axes.plot(plot.x, mean, color=ACCENT, linewidth=2.8)
    if plot.best is not None:
        best = plot.x[plot.best], mean[plot.best]
        axes.axvline(best[0], color=ACCENT, linewidth=0.8, linestyle=(0, (4, 4)))
        axes.plot(*best, "o", color=ACCENT, markersize=7, markeredgecolor="white")
    legend = axes.legend(
        mean_handle + handles if named else mean_handle,
        [f"all classes  {plot.mean_note}", *labels]
        if named
        else [f"all classes  {plot.mean_note}"],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _set_up(axes: Axes, axis_names: tuple[str, str]) -> None:
    x_name, y_name = axis_names
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(x_name, color=INK)
    axes.set_ylabel(y_name, color=INK)
    write_title(axes, f"{y_name} by {x_name.lower()}", "IoU 0.5")
    plain_axes(axes)
