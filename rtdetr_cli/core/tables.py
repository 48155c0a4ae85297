"""Tables that users take elsewhere: the rows of a `summary` as CSV, JSON or a data frame.

Results (core/results.py), Metrics and ConfusionMatrix (evaluation/) are such tables.
"""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from importlib import import_module
from typing import Any, ClassVar

from rtdetr_cli.core.errors import BackendError

Row = dict[str, Any]


class Table(ABC):
    """Something with rows, under the method names of Ultralytics.

    Attributes:
        columns: of the CSV when there are no rows.
    """

    columns: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def summary(self, normalize: bool = False, decimals: int = 5) -> list[Row]:
        """The rows: plain numbers and texts by column; a box is a dict in its column."""

    def to_json(self, normalize: bool = False, decimals: int = 5) -> str:
        """`summary` as a JSON array."""
        return json.dumps(self.summary(normalize, decimals), indent=2, ensure_ascii=False)

    def to_csv(self, normalize: bool = False, decimals: int = 5) -> str:
        """`summary` as CSV; a box becomes the columns x1, y1, x2 and y2."""
        rows = [_flat(row) for row in self.summary(normalize, decimals)]
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0] if rows else self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def to_df(self, normalize: bool = False, decimals: int = 5) -> Any:  # noqa: ANN401  (of pandas)
        """`summary` as a DataFrame of pandas, or of polars if only that is installed.

        Raises:
            BackendError: neither is installed.
        """
        for library in ("pandas", "polars"):
            try:
                return import_module(library).DataFrame(self.summary(normalize, decimals))
            except ModuleNotFoundError as error:
                if error.name != library:
                    raise
        raise BackendError("to_df() needs pandas or polars: pip install pandas")


def _flat(row: Row) -> Row:
    """A row with the entries of each dict in place of its column."""
    flat: Row = {}
    for column, value in row.items():
        flat |= value if isinstance(value, dict) else {column: value}
    return flat
