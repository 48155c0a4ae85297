"""The common look of the figures of a run: an empty canvas, titles, axes, and saving.

matplotlib is imported where it draws, through its object interface, so that no window system and
no global state are touched.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from rtdetr_cli.core.errors import printable
from rtdetr_cli.core.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, ACCENT, TINT = "#1f2933", "#7b8794", "#1d4ed8", "#c7d2f5"
_MAX_NAME_LENGTH = 24


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure, size in inches, and its only axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", w_pad=0.15, h_pad=0.15)
    return figure, figure.add_subplot()


def write_title(axes: Axes, title: str, condition: str) -> None:
    """Write a title, and below it in small the condition under which the figure holds."""
    axes.set_title(f"{title}\n", loc="left", color=INK, fontweight="bold")
    axes.annotate(
        condition,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 6),
        textcoords="offset points",
        color=MUTED,
        fontsize=9,
    )


def plain_axes(axes: Axes) -> None:
    """Set a light grid and two spines."""
    axes.grid(color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=INK, length=0)


def save_figure(path: Path, figure: Figure, dpi: int = 150) -> None:
    """Write a figure that may contain class names.

    Raises:
        StorageError: no space left or no permission.
    """
    with atomic_write(path) as temporary:
        _save(figure, temporary, dpi)


def figure_as_png(figure: Figure, dpi: int = 120) -> bytes:
    """A figure, as `save_figure` writes it, for a page of report/."""
    stream = io.BytesIO()
    _save(figure, stream, dpi)
    return stream.getvalue()


def _save(figure: Figure, target: Path | io.BytesIO, dpi: int) -> None:
    with warnings.catch_warnings():
        # Class names in a script that the font of matplotlib lacks are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure.savefig(target, dpi=dpi)


def short_name(name: str) -> str:
    """A printable class name, shortened for a plot."""
    name = printable(name)
    return name if len(name) <= _MAX_NAME_LENGTH else name[: _MAX_NAME_LENGTH - 1] + "…"
