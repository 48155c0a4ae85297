"""The confusion matrix of a validation: counts, tables and an image.

matching.py counts, coco.py builds it, report.py draws it into the run folder.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rtdetr_cli.core.console import result
from rtdetr_cli.core.tables import Row, Table
from rtdetr_cli.evaluation.figures import INK, canvas, save_figure, short_name, write_title
from rtdetr_cli.evaluation.matching import CONFUSION_MIN_SCORE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MAX_NUMBERED = 31
_MAX_NAMED = 121


@dataclass(frozen=True, eq=False)
class ConfusionMatrix(Table):
    """Predicted against true classes at IoU 0.5, under the names of Ultralytics.

    Detections with a score of at least CONFUSION_MIN_SCORE count. `np.asarray` gives `matrix`.

    Attributes:
        matrix: (K+1, K+1) counts, a row per predicted class, a column per true class; the last row
            holds boxes that nothing found, the last column detections of nothing.
        names: class index to name.
    """

    matrix: Ints
    names: dict[int, str]

    task = "detect"

    @property
    def nc(self) -> int:
        """Number of classes K, without the background."""
        return len(self.names)

    def shares(self) -> Floats:
        """(K+1, K+1) `matrix` divided by the sum of its column: shares of each true class."""
        shares: Floats = self.matrix / np.maximum(self.matrix.sum(axis=0), 1)
        return shares

    def tp_fp(self) -> tuple[Ints, Ints]:
        """(K,) right and (K,) wrong detections of each class."""
        right = self.matrix.diagonal()[:-1]
        return right, self.matrix.sum(axis=1)[:-1] - right

    def summary(self, normalize: bool = False, decimals: int = 5) -> list[Row]:
        """One row per predicted class: its name under `Predicted`, a column per true class.

        Args:
            normalize: shares of each true class instead of counts.
            decimals: digits after the decimal point of the shares.
        """
        names = [*self.names.values(), "background"]
        taken = Counter([*names, "Predicted"])
        columns = [f"{name} ({i})" if taken[name] > 1 else name for i, name in enumerate(names)]
        values = self.shares().round(decimals) if normalize else self.matrix
        return [
            {"Predicted": name, **dict(zip(columns, row, strict=True))}
            for name, row in zip(columns, values.tolist(), strict=True)
        ]

    def most_mixed(self, limit: int) -> list[tuple[str, str, int]]:
        """True class, predicted class and count of the pairs of classes that are mixed up most."""
        wrong = self.matrix[:-1, :-1].copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
        names = list(self.names.values())
        pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
        return [
            (names[true], names[predicted], int(wrong[predicted, true]))
            for predicted, true in pairs
            if wrong[predicted, true]
        ]

    def print(self) -> None:
        """Print the counts, one row per predicted class."""
        for row in self.matrix.tolist():
            result(" ".join(map(str, row)))

    def plot(self, normalize: bool = True, save_dir: str | Path = "") -> Path:
        """Draw it as `confusion_matrix_normalized.png` or `confusion_matrix.png`.

        Args:
            normalize: shares of each true class instead of counts.
            save_dir: folder of the image; the current one by default.

        Raises:
            StorageError: no space left or no permission.
        """
        path = Path(save_dir) / f"confusion_matrix{'_normalized' * normalize}.png"
        save_figure(path, self.figure(normalize))
        return path

    def figure(self, normalize: bool = True) -> Figure:
        """What `plot` writes."""
        return _draw(self, normalize)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.matrix, dtype) if copy else np.asarray(self.matrix, dtype)


def _draw(confusion: ConfusionMatrix, normalize: bool) -> Figure:
    from matplotlib.colors import PowerNorm

    values = confusion.shares() if normalize else confusion.matrix.astype(np.float64)
    side = float(np.clip(2.5 + 0.45 * len(values), 6, 16))
    figure, axes = canvas(side + 1, side)
    # The square root keeps rare classes visible next to frequent ones.
    shades = PowerNorm(1.0 if normalize else 0.5, vmin=0, vmax=max(values.max(), 1))
    image = axes.imshow(values, cmap="Blues", norm=shades)
    bar = figure.colorbar(image, shrink=0.7, pad=0.02, aspect=30)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, colors=INK)
    unit = "share of each true class" if normalize else "counts"
    condition = f"IoU 0.5, confidence {CONFUSION_MIN_SCORE} and above"
    write_title(axes, f"Confusion: {unit}", condition)
    axes.set_xlabel("True class", color=INK)
    axes.set_ylabel("Predicted class", color=INK)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=INK, labelsize=9 if len(values) <= _MAX_NUMBERED else 6)
    names = [short_name(name) for name in confusion.names.values()] + ["background"]
    shown = names if len(names) <= _MAX_NAMED else []
    axes.set_xticks(range(len(shown)), shown, rotation=90, parse_math=False)
    axes.set_yticks(range(len(shown)), shown, parse_math=False)
    if len(values) <= _MAX_NUMBERED:
        _write_numbers(axes, values, shades(values) > 0.5, "{:.2f}" if normalize else "{:.0f}")
    return figure


def _write_numbers(
    axes: Axes, values: Floats, on_dark: NDArray[np.bool_], number_format: str
) -> None:
    for row, column in zip(*np.nonzero(values), strict=True):
        color = "white" if on_dark[row, column] else INK
        text = number_format.format(values[row, column])
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
