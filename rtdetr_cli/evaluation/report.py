"""Images of a validation (curves of precision, recall and F1, confusion matrices) or a benchmark.

matplotlib is imported where it draws, through its object interface, so that no window system and
no global state are touched.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtdetr_cli.core.errors import printable
from rtdetr_cli.core.files import atomic_write
from rtdetr_cli.evaluation.matching import CONFIDENCES, CONFUSION_MIN_SCORE
from rtdetr_cli.evaluation.metrics import Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

_INK, _MUTED, _ACCENT = "#1f2933", "#7b8794", "#1d4ed8"
_MAX_NAMED_CURVES = 20
_MAX_NUMBERED = 31
_MAX_NAMED = 121
_MAX_NAME_LENGTH = 24


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
    figures = {
        "BoxPR_curve.png": _draw_curves(_precision_recall(metrics), metrics),
        "BoxF1_curve.png": _draw_curves(_by_confidence("F1", metrics), metrics),
        "BoxP_curve.png": _draw_curves(_by_confidence("Precision", metrics), metrics),
        "BoxR_curve.png": _draw_curves(_by_confidence("Recall", metrics), metrics),
        "confusion_matrix.png": _draw_matrix(metrics, normalized=False),
        "confusion_matrix_normalized.png": _draw_matrix(metrics, normalized=True),
    }
    for name, figure in figures.items():
        save_figure(run_dir / name, figure)
    return [run_dir / name for name in figures]


def save_tradeoff(path: Path, points: list[tuple[str, float, float]], y_name: str) -> None:
    """Plot latency against accuracy of each format of a benchmark.

    Args:
        path: the PNG file.
        points: name, latency in milliseconds and what is on the y axis.
        y_name: what that is.

    Raises:
        StorageError: no space left or no permission.
    """
    figure, axes = _canvas(9, 5.5)
    _title(axes, f"{y_name} by latency", "one image, median")
    axes.set_xlabel("Latency, ms", color=_INK)
    axes.set_ylabel(y_name, color=_INK)
    _plain(axes)
    for name, latency_ms, value in points:
        axes.plot(latency_ms, value, "o", color=_ACCENT, markersize=7)
        axes.annotate(
            name,
            (latency_ms, value),
            xytext=(7, 5),
            textcoords="offset points",
            color=_INK,
            fontsize=9,
        )
    axes.margins(0.15)
    axes.set_xlim(left=0)
    save_figure(path, figure)


def save_figure(path: Path, figure: Figure, dpi: int = 150) -> None:
    """Write a figure that may contain class names.

    Raises:
        StorageError: no space left or no permission.
    """
    with warnings.catch_warnings(), atomic_write(path) as temporary:
        # Class names in a script that the font of matplotlib lacks are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure.savefig(temporary, dpi=dpi)


def _precision_recall(metrics: Metrics) -> _CurvePlot:
    lines = metrics.box.precision_at_recall[metrics.box.ap_class_index]
    notes = [f"{value:.3f}" for value in metrics.box.ap50]
    recall_levels = np.linspace(0, 1, lines.shape[1])
    mean_note = f"{metrics.box.map50:.3f} AP50"
    return _CurvePlot(("Recall", "Precision"), recall_levels, lines, notes, mean_note)


def _by_confidence(name: str, metrics: Metrics) -> _CurvePlot:
    """Curves per class over confidence; F1 also lists the best confidence of each class."""
    curves = metrics.box.curves
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


def _draw_curves(plot: _CurvePlot, metrics: Metrics) -> Figure:
    from matplotlib import colormaps

    figure, axes = _canvas(9, 5.5)
    _set_up(axes, plot.axes)
    if not len(plot.lines):
        axes.text(0.5, 0.5, "no ground truth", ha="center", va="center", color=_MUTED)
        return figure
    names = [metrics.names[index] for index in metrics.box.ap_class_index]
    named = len(names) <= _MAX_NAMED_CURVES
    palette = colormaps["tab10" if len(names) <= 10 else "tab20"]
    handles, labels = [], []
    for number, (line, name, note) in enumerate(zip(plot.lines, names, plot.notes, strict=True)):
        color = palette(number % palette.N) if named else _MUTED
        handles += axes.plot(plot.x, line, color=color, linewidth=1.2 if named else 0.5, alpha=0.8)
        labels.append(f"{short_name(name)}  {note}")
    mean = plot.lines.mean(axis=0)
    mean_handle = axes.plot(plot.x, mean, color=_ACCENT, linewidth=2.8)
    if plot.best is not None:
        best = plot.x[plot.best], mean[plot.best]
        axes.axvline(best[0], color=_ACCENT, linewidth=0.8, linestyle=(0, (4, 4)))
        axes.plot(*best, "o", color=_ACCENT, markersize=7, markeredgecolor="white")
    legend = axes.legend(
        mean_handle + handles if named else mean_handle,
        [f"all classes  {plot.mean_note}", *labels]
        if named
        else [f"all classes  {plot.mean_note}"],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=9,
        labelcolor=_INK,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _set_up(axes: Axes, axis_names: tuple[str, str]) -> None:
    x_name, y_name = axis_names
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(x_name, color=_INK)
    axes.set_ylabel(y_name, color=_INK)
    _title(axes, f"{y_name} by {x_name.lower()}", "IoU 0.5")
    _plain(axes)


def _plain(axes: Axes) -> None:
    """Set a light grid and two spines."""
    axes.grid(color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_MUTED)
    axes.tick_params(colors=_INK, length=0)


def _draw_matrix(metrics: Metrics, normalized: bool) -> Figure:
    from matplotlib.colors import PowerNorm

    values = metrics.confusion_matrix.astype(np.float64)
    if normalized:
        values /= np.maximum(values.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(2.5 + 0.45 * len(values), 6, 16))
    figure, axes = _canvas(side + 1, side)
    # The square root keeps rare classes visible next to frequent ones.
    shades = PowerNorm(1.0 if normalized else 0.5, vmin=0, vmax=max(values.max(), 1))
    image = axes.imshow(values, cmap="Blues", norm=shades)
    bar = figure.colorbar(image, shrink=0.7, pad=0.02, aspect=30)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, colors=_INK)
    unit = "share of each true class" if normalized else "counts"
    _title(axes, f"Confusion: {unit}", f"IoU 0.5, confidence {CONFUSION_MIN_SCORE} and above")
    axes.set_xlabel("Detected class", color=_INK)
    axes.set_ylabel("True class", color=_INK)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=_INK, labelsize=9 if len(values) <= _MAX_NUMBERED else 6)
    names = [short_name(name) for name in metrics.names.values()] + ["background"]
    shown = names if len(names) <= _MAX_NAMED else []
    axes.set_xticks(range(len(shown)), shown, rotation=90, parse_math=False)
    axes.set_yticks(range(len(shown)), shown, parse_math=False)
    if len(values) <= _MAX_NUMBERED:
        _write_numbers(axes, values, shades(values) > 0.5, "{:.2f}" if normalized else "{:.0f}")
    return figure


def _write_numbers(
    axes: Axes, values: Floats, on_dark: NDArray[np.bool_], number_format: str
) -> None:
    for row, column in zip(*np.nonzero(values), strict=True):
        color = "white" if on_dark[row, column] else _INK
        text = number_format.format(values[row, column])
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure, size in inches, and its only axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", w_pad=0.15, h_pad=0.15)
    return figure, figure.add_subplot()


def _title(axes: Axes, title: str, condition: str) -> None:
    axes.set_title(f"{title}\n", loc="left", color=_INK, fontweight="bold")
    axes.annotate(
        condition,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 6),
        textcoords="offset points",
        color=_MUTED,
        fontsize=9,
    )


def short_name(name: str) -> str:
    """A printable class name, shortened for a plot."""
    name = printable(name)
    return name if len(name) <= _MAX_NAME_LENGTH else name[: _MAX_NAME_LENGTH - 1] + "…"
