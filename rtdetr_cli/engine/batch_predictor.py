"""BatchPredictor: the detector as one picklable function of batches, for Ray Data and Spark.

It needs none of them: a batch is a table of columns or a list, the result is columns of NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.core.errors import DataError, UsageError
from rtdetr_cli.core.results import Results
from rtdetr_cli.engine.predict import outcomes_of
from rtdetr_cli.engine.predicting.lines import Outcome
from rtdetr_cli.engine.predicting.rows import Row, arrow_table, box_columns, json_line, timeless_row
from rtdetr_cli.media.item import Reading, SourceImage
from rtdetr_cli.media.readers import read_bytes, read_file
from rtdetr_cli.media.source import Entry, Source

Columns: TypeAlias = "dict[str, NDArray[Any]]"

_OF_FILES = (
    *("source", "save", "show_", "line_width", "project", "name", "exist_ok", "json", "out"),
    *("rows", "part_size", "shard", "resume", "vid_stride", "stream_buffer"),
)
"""Beginnings of the keys of `rtdetr predict` without effect on a batch."""


class BatchPredictor:
    """Detects in batches of images; opens its model in the process that first calls it.

    Example:
        >>> predict = BatchPredictor("rtdetr-l.pt", conf=0.4)
        >>> predict(["a.jpg", "b.jpg"])["confidence"]

    One model is kept per process, whatever the number of copies.

    Attributes:
        spark_schema: the columns of a result for Spark's `mapInPandas`.
    """

    spark_schema = (
        "path string, width int, height int, error string, name array<string>, class array<int>, "
        "confidence array<double>, x1 array<double>, y1 array<double>, x2 array<double>, "
        "y2 array<double>"
    )

    def __init__(self, model: str = "rtdetr-l.pt", **keys: object) -> None:
        """Check the keys; nothing is opened.

        Args:
            model: weights or an exported file, at the same path on every machine, or a published
                name.
            **keys: of `rtdetr predict`, without those of its outputs; `batch` images go through
                the network at once.

        Raises:
            UsageError: an unknown key, or a value out of range.
        """
        useless = next((key for key in keys if key.startswith(_OF_FILES)), None)
        if useless is not None:
            raise UsageError(f"{useless} has no effect on BatchPredictor, which returns columns")
        pairs = {**keys, "model": model, "source": "-", "save": False}
        self.settings = settings_from_pairs(PredictSettings, pairs)

    def __call__(self, batch: Any) -> Any:  # noqa: ANN401  (tables of any library)
        """Detect.

        Args:
            batch: a table (a dict of columns, a DataFrame or a pyarrow.Table) with the images as
                encoded `bytes` or, without that column, the `path` of their files; or a list, an
                array or a series of bytes or paths.

        Returns:
            Columns, a dict of NumPy arrays or, for one, a pyarrow.Table, with a row for each image,
            in order: `path`, `width` and `height` in pixels,
            `error`, and for its detections a list each of `name`, `class`, `confidence`, `x1`,
            `y1`, `x2` and `y2` in pixels. A row that cannot be read has its reason in `error`,
            which is empty otherwise, width and height 0, and no detections. An animation has the
            detections of its first frame.

        Raises:
            UsageError: the batch has neither column.
            RTDETRError: the model cannot be opened.
        """
        columns = _columns(self._rows(batch))
        return arrow_table(columns) if _is_arrow(batch) else columns

    def json_rows(self, batch: Any) -> NDArray[Any]:  # noqa: ANN401
        """Detect, and return each row as JSON text, as `json=lines` prints it without times.

        For Spark's `predict_batch_udf`, whose columns cannot be lists of different lengths.
        """
        return _objects([json_line(one).decode() for one in self._rows(batch)])

    def _rows(self, batch: Any) -> list[Row]:  # noqa: ANN401
        entries = [_entry(value, name) for value, name in _images(batch)]
        outcomes = _opened(self.settings)(Source(entries, len(entries)))
        return [timeless_row(item, outcome) for item, outcome in outcomes]


@lru_cache(maxsize=1)
def _opened(settings: PredictSettings) -> Callable[[Source], Iterator[Outcome]]:
    return outcomes_of(settings)


def _is_arrow(batch: object) -> bool:
    return type(batch).__module__.partition(".")[0] == "pyarrow" and hasattr(batch, "to_pydict")


def _images(batch: Any) -> Iterator[tuple[Any, str]]:  # noqa: ANN401  (tables of any library)
    """Each image, as bytes or a path, with its name."""
    if _is_arrow(batch):
        batch = batch.to_pydict()
    if not isinstance(batch, Mapping) and not hasattr(batch, "columns"):
        values = list(batch)
        for number, value in enumerate(values):
            yield value, str(value) if isinstance(value, (str, Path)) else f"image{number}.jpg"
        return
    column = next((key for key in ("bytes", "path") if key in batch), None)
    if column is None:
        found = ", ".join(map(str, batch)) or "none"
        raise UsageError(f"a batch needs a column bytes or path; its columns: {found}")
    values = list(batch[column])
    names = (
        list(batch["path"]) if "path" in batch else [f"image{n}.jpg" for n in range(len(values))]
    )
    yield from zip(values, map(str, names), strict=True)


def _entry(value: Any, name: str) -> Entry:  # noqa: ANN401
    """A source of exactly one image or error."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return lambda: _first(partial(read_bytes, bytes(value), name), name)
    if isinstance(value, (str, Path)):
        return lambda: _first(partial(read_file, Path(value)), name)
    error = f"{name}: is of type {type(value).__name__}, expected bytes or a path"
    return lambda: iter([SourceImage(name, None, error)])


def _first(read: Callable[[], Reading], name: str) -> Reading:
    """The first image or frame, as an image."""
    try:
        for one in read():
            yield one and SourceImage(name, one.image, one.error)
            if one is not None:
                return
    except DataError as error:
        yield SourceImage(name, None, str(error))


def _columns(rows: list[Row]) -> Columns:
    """The columns of NumPy: numbers, and objects for texts and lists."""
    columns: Columns = {
        "path": _objects([one["path"] for one in rows]),
        "width": np.array([one.get("width", 0) for one in rows], np.int64),
        "height": np.array([one.get("height", 0) for one in rows], np.int64),
        "error": _objects([one.get("error", "") for one in rows]),
    }
    boxes = [box_columns(one) for one in rows]
    return columns | {key: _objects([one[key] for one in boxes]) for key in Results.columns}


def _objects(values: list[Any]) -> NDArray[Any]:
    """An array of objects; NumPy itself would make lists of one length a second dimension."""
    array = np.empty(len(values), object)
    for place, value in enumerate(values):
        array[place] = value
    return array
