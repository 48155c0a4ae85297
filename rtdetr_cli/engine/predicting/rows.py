"""Rows of detections in files: JSON lines or Parquet, one row per image or frame of a video.

shards.py decides which images a file holds. Parquet and batches have the same columns: a list per
column of `Results.columns`, whose entries belong together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from rtdetr_cli.core.errors import BackendError, DataError
from rtdetr_cli.core.results import Results
from rtdetr_cli.engine.predicting.lines import row
from rtdetr_cli.media.item import SourceImage

Row = dict[str, Any]


class PartSummary(NamedTuple):
    """What a file of rows holds."""

    paths: list[str]
    """Path of each source file, in order."""
    rows: int
    errors: int


def timeless_row(item: SourceImage, outcome: object) -> Row:
    """The row of `json=true` without measured times: equal in every run."""
    return {key: value for key, value in row(item, outcome).items() if key != "speed"}


def write_rows(path: Path, rows: Iterable[Row], form: str) -> None:
    """Write a file of rows.

    Args:
        path: the file.
        rows: are read as they are written; those of Parquet are kept until the end.
        form: jsonl or parquet.

    Raises:
        BackendError: pyarrow is not installed.
    """
    if form == "parquet":
        _write_parquet(path, list(rows))
        return
    with path.open("wb") as stream:
        for one in rows:
            stream.write(json_line(one) + b"\n")


def json_line(values: Row) -> bytes:
    """A row as JSON in one line of UTF-8; other bytes of a path are escaped as `json` does."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")  # as JSON escapes them


def read_summary(path: Path) -> PartSummary:
    """Read a file of rows and count what it holds.

    Raises:
        DataError: it is damaged.
        BackendError: pyarrow is not installed.
    """
    try:
        found = list(_parquet_heads(path) if path.suffix == ".parquet" else _json_heads(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error})") from error
    errors = sum(is_error for _, is_error in found)
    return PartSummary([name for name, _ in groupby(name for name, _ in found)], len(found), errors)


def box_columns(values: Row) -> dict[str, list[Any]]:
    """The detections of a row as a list per column, in the order of the scores."""
    found = values.get("detections", [])
    flat = ({**one, **one["box"]} for one in found)
    rows = [[one[key] for key in Results.columns] for one in flat]
    return {key: [one[place] for one in rows] for place, key in enumerate(Results.columns)}


def pyarrow() -> ModuleType:
    """The module pyarrow, with its Parquet reader and writer.

    Raises:
        BackendError: it is not installed.
    """
    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ImportError:
        raise BackendError(
            "Parquet files need pyarrow: pip install 'rtdetr-cli[parquet]', or use rows=jsonl"
        ) from None


def _json_heads(path: Path) -> Iterator[tuple[str, bool]]:
    """The path of each row and whether it is an error."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            values = json.loads(line) if line.endswith(b"\n") else None
            if not isinstance(values, dict) or "path" not in values:
                raise ValueError(f"line {number} is no row")
            yield str(values["path"]), "error" in values


def _parquet_heads(path: Path) -> Iterator[tuple[str, bool]]:
    arrow = pyarrow()
    try:
        table = arrow.parquet.read_table(path, page_checksum_verification=True)
        heads = table.select(["path", "error"]).to_pydict()
    except (arrow.ArrowException, KeyError) as error:
        raise ValueError(str(error).partition("\n")[0]) from error
    errors = (error is not None for error in heads["error"])
    yield from zip(heads["path"], errors, strict=True)


def _write_parquet(path: Path, rows: list[Row]) -> None:
    scalars = ("path", "frame", "time_s", "width", "height", "error")
    columns: dict[str, list[Any]] = {key: [_plain(one.get(key)) for one in rows] for key in scalars}
    boxes = [box_columns(one) for one in rows]
    columns |= {key: [one[key] for one in boxes] for key in Results.columns}
    pyarrow().parquet.write_table(arrow_table(columns), path, write_page_checksum=True)


def arrow_table(columns: Mapping[str, Iterable[Any]]) -> Any:  # noqa: ANN401  (pyarrow is an extra)
    """A pyarrow.Table of columns, with the types of each whatever its values are.

    Raises:
        BackendError: pyarrow is not installed.
    """
    arrow = pyarrow()
    text, numbers = arrow.string(), arrow.list_(arrow.float64())
    types = {
        "path": text,
        "frame": arrow.int32(),
        "time_s": arrow.float64(),
        "width": arrow.int32(),
        "height": arrow.int32(),
        "error": text,
        "name": arrow.list_(text),
        "class": arrow.list_(arrow.int32()),
    }
    schema = arrow.schema([(key, types.get(key, numbers)) for key in columns])
    return arrow.table({key: list(values) for key, values in columns.items()}, schema=schema)


def _plain(value: object) -> object:
    """A text as UTF-8 can hold it: file names may have other bytes."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "backslashreplace").decode()
