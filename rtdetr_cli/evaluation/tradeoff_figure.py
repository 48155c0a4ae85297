"""The figure of `rtdetr tradeoff`: AP with its interval by latency, and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rtdetr_cli.evaluation.figures import (
    ACCENT,
    INK,
    MUTED,
    canvas,
    plain_axes,
    save_figure,
    write_title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^vP*X<>hp"
"""One per group."""


@dataclass(frozen=True)
class TradeoffPoint:
    """One setting in the figure; AP in points, 0 to 100.

    Attributes:
        name: label, if it is on the front.
        group: settings of a group have the same marker.
        latency_ms: of one image.
        ap: of the split.
        low: lower end of the interval of AP.
        high: upper end.
        is_best: whether it is on the Pareto front.
        is_chosen: whether it is the choice.
    """

    name: str
    group: str
    latency_ms: float
    ap: float
    low: float
    high: float
    is_best: bool
    is_chosen: bool


def save_tradeoff_figure(path: Path, points: Sequence[TradeoffPoint], condition: str) -> None:
    """Draw the points of all settings; those of the front with interval, name and a line.

    Args:
        path: the PNG file.
        points: the settings.
        condition: what was measured on which data, below the title.

    Raises:
        StorageError: no space left or no permission.
    """
    figure, axes = canvas(10, 6)
    write_title(axes, "AP by latency", condition)
    axes.set_xlabel("Latency of one image, median, ms", color=INK)
    axes.set_ylabel("AP in points, 95 % interval", color=INK)
    plain_axes(axes)
    groups = dict.fromkeys(point.group for point in points)
    for group, marker in zip(groups, MARKERS * (1 + len(groups) // len(MARKERS)), strict=False):
        mine = [point for point in points if point.group == group]
        colors = [ACCENT if point.is_best else MUTED for point in mine]
        places = [point.latency_ms for point in mine], [point.ap for point in mine]
        axes.scatter(*places, s=36, c=colors, marker=marker, zorder=3)
        axes.scatter([], [], s=36, c=INK, marker=marker, label=group)  # for the legend
    _draw_front(axes, sorted((one for one in points if one.is_best), key=lambda o: o.latency_ms))
    for point in points:
        if point.is_chosen:
            axes.scatter(
                point.latency_ms,
                point.ap,
                s=190,
                facecolors="none",
                edgecolors=ACCENT,
                linewidths=1.8,
                zorder=4,
                label="chosen",
            )
    axes.margins(0.1)
    axes.set_xlim(left=0)
    axes.legend(loc="lower right", frameon=False, labelcolor=INK)
    save_figure(path, figure)


def _draw_front(axes: Axes, best: Sequence[TradeoffPoint]) -> None:
    """The front as a line with intervals; names alternate above and below."""
    latencies_ms, aps = [point.latency_ms for point in best], [point.ap for point in best]
    axes.step(latencies_ms, aps, where="post", color=ACCENT, linewidth=1, alpha=0.6)
    below, above = [p.ap - p.low for p in best], [p.high - p.ap for p in best]
    axes.errorbar(
        latencies_ms,
        aps,
        yerr=[below, above],
        fmt="none",
        ecolor=ACCENT,
        elinewidth=0.8,
        alpha=0.35,
    )
    for place, point in enumerate(best):
        axes.annotate(
            point.name,
            (point.latency_ms, point.ap),
            xytext=(6, -13 if place % 2 else 7),
            textcoords="offset points",
            color=INK,
            fontsize=8,
        )
