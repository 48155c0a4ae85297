"""labels.jpg: how many boxes each class has, where they are and how large."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rtdetr_cli.data.dataset import DetectionDataset, Floats, Ints
from rtdetr_cli.evaluation.figures import plain_axes, save_figure, short_name
from rtdetr_cli.media.draw import class_color

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure

MAX_BARS = 100
"""Classes with a bar; of more, the most frequent ones."""
MAX_OUTLINES = 500
"""Boxes drawn as outlines, spread evenly over the data set."""
_LOG_FROM = 50
"""Ratio of the most to the least frequent class from which on the axis is logarithmic."""


class _Labels(NamedTuple):
    """All boxes but crowds: classes (N,), and centre and size (N, 2) as fractions of the image."""

    classes: Ints
    centres: Floats
    sizes: Floats


def plot_labels(path: Path, dataset: DetectionDataset) -> None:
    """Draw labels.jpg for a split.

    Raises:
        StorageError: no space left or no permission.
    """
    save_figure(path, draw_labels(dataset), dpi=100)


def draw_labels(dataset: DetectionDataset) -> Figure:
    """A figure with boxes per class, outlines, centres and sizes of the boxes."""
    from matplotlib.figure import Figure

    labels = _labels_of(dataset)
    figure = Figure(figsize=(13, 9))
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    parts = figure.subplot_mosaic([["classes"] * 3, ["outlines", "centres", "sizes"]])
    _draw_classes(parts["classes"], labels.classes, dataset)
    _draw_outlines(parts["outlines"], labels)
    cells = int(np.clip(len(labels.classes) ** 0.5 / 2, 10, 50))
    _draw_density(parts["centres"], labels.centres, "Centres", cells)
    parts["centres"].set(xlabel="x / image width", ylabel="y / image height", ylim=(1, 0))
    _draw_density(parts["sizes"], labels.sizes, "Sizes", cells=50)
    parts["sizes"].set(xlabel="width / image width", ylabel="height / image height", ylim=(0, 1))
    return figure


def _labels_of(dataset: DetectionDataset) -> _Labels:
    parts = [_Labels(np.zeros(0, np.int64), *np.zeros((2, 0, 2), np.float32))]
    for record in dataset.records:
        boxes_xyxy = record.boxes_xyxy[~record.iscrowd]
        size_wh = np.array(record.size_hw[::-1], np.float32)
        low, high = boxes_xyxy[:, :2] / size_wh, boxes_xyxy[:, 2:] / size_wh
        parts.append(
            _Labels(
                record.labels[~record.iscrowd], np.asarray((low + high) / 2, np.float32), high - low
            )
        )
    return _Labels(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _draw_classes(axes: Axes, classes: Ints, dataset: DetectionDataset) -> None:
    """A bar per class with its count, in the color of its boxes."""
    counts = np.bincount(classes, minlength=len(dataset.names))
    shown = np.arange(len(counts))
    if len(counts) > MAX_BARS:
        shown = np.argsort(-counts, kind="stable")[:MAX_BARS]
    plain_axes(axes)
    axes.grid(visible=False, axis="x")
    is_log = _is_uneven(counts)
    heights = np.maximum(counts[shown], 0.5) if is_log else counts[shown]
    colors = [np.array(class_color(index)) / 255 for index in shown.tolist()]
    bars = axes.bar(range(len(shown)), heights, color=colors, edgecolor="#1f2933", linewidth=0.5)
    if is_log:
        axes.set_yscale("log")
        axes.set_ylim(0.5, 3 * counts.max())
        axes.yaxis.set_major_formatter("{x:,.0f}")
    else:
        axes.set_ylim(0, 1.12 * max(counts.max(), 1))
    axes.set_ylabel("boxes, logarithmic" if is_log else "boxes")
    _name_bars(axes, bars, counts[shown].tolist(), [dataset.names[i] for i in shown.tolist()])
    _title(axes, _summary(counts, dataset, len(shown)))


def _is_uneven(counts: Ints) -> bool:
    present = counts[counts > 0]
    return len(present) > 0 and bool(present.max() > _LOG_FROM * present.min())


def _name_bars(axes: Axes, bars: BarContainer, counts: list[int], names: list[str]) -> None:
    is_crowded = len(names) > 30
    size = 6.5 if is_crowded else 9
    turn = 90 if is_crowded else 0
    axes.bar_label(
        bars, [f"{count:,}" for count in counts], rotation=turn, fontsize=size, padding=2
    )
    shown = [short_name(name) for name in names]
    if 8 < len(names) <= 30:
        axes.set_xticks(range(len(names)), shown, rotation=30, ha="right", parse_math=False)
    else:
        axes.set_xticks(range(len(names)), shown, rotation=turn, fontsize=size, parse_math=False)
    axes.set_xlim(-0.7, len(names) - 0.3)


def _summary(counts: Ints, dataset: DetectionDataset, num_shown: int) -> str:
    with_boxes = sum(bool((~record.iscrowd).any()) for record in dataset.records)
    text = f"{counts.sum():,} boxes in {with_boxes:,} of {len(dataset):,} images"
    missing = int((counts == 0).sum())
    if missing:
        text += f"; {missing} of {len(counts)} classes without boxes"
    if num_shown < len(counts):
        text += f"; the {num_shown} most frequent of {len(counts)} classes"
    return text


def _draw_outlines(axes: Axes, labels: _Labels) -> None:
    """Outlines around a common centre, the largest first, in the colors of their classes."""
    from matplotlib.collections import PolyCollection

    num_boxes = len(labels.classes)
    chosen = np.unique(np.linspace(0, num_boxes - 1, min(num_boxes, MAX_OUTLINES)).astype(int))
    chosen = chosen[np.argsort(-labels.sizes[chosen].prod(axis=1), kind="stable")]
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    outlines = 0.5 + labels.sizes[chosen, None] * corners
    alpha = float(np.clip(100 / max(len(chosen), 1), 0.2, 0.9))
    colors = [(*np.array(class_color(index)) / 255, alpha) for index in labels.classes[chosen]]
    axes.add_collection(
        PolyCollection(list(outlines), facecolors="none", edgecolors=colors, linewidths=0.8)
    )
    _square(axes)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])
    axes.set_facecolor("#1f2933")
    _title(axes, f"Outlines of {len(chosen):,} boxes")


def _draw_density(axes: Axes, points: Floats, title: str, cells: int) -> None:
    """Counts in `cells` times `cells` squares; the square root keeps single boxes visible."""
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import MaxNLocator

    edges = np.linspace(0, 1, cells + 1)
    counts, _, _ = np.histogram2d(points[:, 0], points[:, 1], bins=[edges, edges])
    shades = PowerNorm(0.5, vmin=0, vmax=max(counts.max(), 1))
    known = np.ma.masked_equal(counts.T, 0)
    image = axes.pcolormesh(edges, edges, known, norm=shades, cmap="viridis")
    ticks = MaxNLocator(6, integer=True)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.75, aspect=30, pad=0.02, ticks=ticks)
    bar.outline.set_visible(False)
    _square(axes)
    axes.set_xlim(0, 1)
    _title(axes, f"{title}, boxes per cell")


def _square(axes: Axes) -> None:
    plain_axes(axes)
    axes.set_aspect("equal")


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=11, fontweight="bold")
