"""Results of many images: files of rows in a folder, by any number of processes, with resume.

A file, a part, holds the rows of `part_size` source files that follow each other, and share i of n
writes the parts i, i + n, i + 2n... Each is written under another name and renamed when it is
whole. So the bytes of a part depend neither on the number of shares nor on interruptions, and a
part that exists is done.

    run.json          the arguments, before the first part; later runs must have the same
    part-000000.jsonl
    manifest.json     all parts with their checksums, after the last one
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from rtdetr_cli.config.fields import field_types
from rtdetr_cli.config.model_path import is_architecture
from rtdetr_cli.config.settings.many_images import parse_shard
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.core.console import progress, result, say, warn
from rtdetr_cli.core.errors import DataError, UsageError
from rtdetr_cli.core.files import atomic_write, is_there, sha256, storage_errors, user_path
from rtdetr_cli.core.lock import claimed
from rtdetr_cli.core.status import Status, counted
from rtdetr_cli.core.version import VERSION
from rtdetr_cli.engine.predicting.lines import Outcome, Totals
from rtdetr_cli.engine.predicting.rows import Row, pyarrow, read_summary, timeless_row, write_rows
from rtdetr_cli.media.addresses import parse_address
from rtdetr_cli.media.paths import find_files
from rtdetr_cli.media.readers import read_file
from rtdetr_cli.media.source import STDIN, Source
from rtdetr_cli.weights.store import resolve_weights

Predict: TypeAlias = Callable[[Source], Iterator[Outcome]]

_FREE = {"out", "shard", "resume", "device", "timeout", "source", "stream_buffer"}
"""Keys that may differ between the processes and the runs of a folder."""
_NO_ROWS = ("save", "show_", "project", "name", "exist_ok", "line_width", "json")
"""Beginnings of keys that do not change rows."""


@dataclass(frozen=True)
class Folder:
    """The folder of results: which files are where.

    Attributes:
        path: the folder.
        files: all source files, each once, in order.
        part_size: source files per part.
        form: jsonl or parquet.
        facts: what run.json says.
    """

    path: Path
    files: list[Path]
    part_size: int
    form: str
    facts: dict[str, Any]

    def __len__(self) -> int:
        """Number of parts."""
        return -(-len(self.files) // self.part_size)

    def part(self, number: int) -> Path:
        """The file of a part."""
        return self.path / f"part-{number:06d}.{self.form}"

    def sources(self, number: int) -> list[Path]:
        """The source files of a part."""
        return self.files[number * self.part_size : (number + 1) * self.part_size]


def write_results(settings: PredictSettings, open_: Callable[[PredictSettings], Predict]) -> int:
    """Detect in the share of this process and write its parts.

    Args:
        settings: of the command, with `out`.
        open_: opens the detector; it is called if something is left to do.

    Returns:
        The exit code: 0, or 3 if some images of the share cannot be read.

    Raises:
        UsageError: the folder holds results of another run, `resume` is missing, or another process
            writes the share.
        DataError: there are no images, or a part of another share is damaged.
        StorageError: disk full or no permission; the parts written so far remain.
    """
    share, shares = own_share(settings)
    if settings.rows == "parquet":
        pyarrow()
    folder = open_folder(settings)
    numbers = range(share, len(folder), shares)
    doing, lock = f"(share {share}/{shares}) is being written", f".share-{share}-of-{shares}.lock"
    with claimed(folder.path, doing, lock):
        return _write_share(folder, numbers, settings, open_)


def _write_share(
    folder: Folder,
    numbers: range,
    settings: PredictSettings,
    open_: Callable[[PredictSettings], Predict],
) -> int:
    """Write the parts of a share; returns the exit code."""
    _refuse_unasked(folder, numbers, settings)
    totals = Totals()
    sums = _listed_sums(folder)
    waiting = [number for number in numbers if not _is_done(folder, number, sums, totals)]
    if len(waiting) < len(numbers):
        say(f"{counted(len(numbers) - len(waiting), 'file')} of {len(numbers)} are done already")
    if waiting:
        _write_parts(folder, waiting, open_(replace(settings, save=False)), totals, settings)
    _finish(folder)
    rows = counted(totals.read + totals.errors, "row")
    unreadable = f", {totals.errors} of images that cannot be read" if totals.errors else ""
    result(f"{settings.out}: {rows} in {counted(len(numbers), 'file')}{unreadable}")
    return DataError.exit_code if totals.errors else 0


def own_share(settings: PredictSettings) -> tuple[int, int]:
    """The share of this process and the number of shares: of `shard`, or of torchrun."""
    if settings.shard is not None:
        return parse_shard(settings.shard)
    return parse_shard(f"{os.environ.get('RANK', '0')}/{os.environ.get('WORLD_SIZE', '1')}")


def open_folder(settings: PredictSettings) -> Folder:
    """Find the source files and check that the folder is of this run, or make it.

    Raises:
        UsageError: it holds results of another run, or other files; or the source has no files.
        DataError: there are no images.
        StorageError: it cannot be written.
    """
    files = _source_files(settings)
    form, size = settings.rows, settings.part_size
    path = user_path(str(settings.out))
    folder = Folder(path, files, size, form, _facts(settings, files))
    run = path / "run.json"
    with storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        if not run.exists():
            others = sorted(one.name for one in path.iterdir() if not one.name.startswith("."))
            if others and not run.exists():  # another process may have started it by now
                raise UsageError(f"out={settings.out}: the folder holds other files ({others[0]})")
            _write_json(run, folder.facts)
    _require_same(folder, run)
    return folder


def _source_files(settings: PredictSettings) -> list[Path]:
    """All files of the source, each once.

    Raises:
        UsageError: it is an address, a camera or standard input, which cannot be read twice.
        DataError: there are none.
    """
    source = settings.source
    streams = source.lower().endswith(".streams")
    if source == STDIN or streams or (not is_there(source) and parse_address(source) is not None):
        raise UsageError(
            f"out= needs files, to find the same ones after an interruption; source={source} is "
            "none: give a folder, a pattern or a list of paths"
        )
    found = find_files(source)
    files = list(dict.fromkeys(found))
    if len(files) < len(found):
        say(f"{source}: {counted(len(found) - len(files), 'repeated path')} left out")
    return files


def _facts(settings: PredictSettings, files: list[Path]) -> dict[str, Any]:
    """What determines the rows, for run.json.

    Raises:
        UsageError: the model has random weights.
        WeightsError: it does not exist.
    """
    if is_architecture(settings.model):
        raise UsageError(f"out= needs weights; {settings.model} is an architecture without them")
    weights = resolve_weights(settings.model)
    inside = [weights] if weights.is_file() else sorted(weights.rglob("*"))
    sums = [sha256(file) for file in inside if file.is_file()]
    names = "\n".join(map(str, files)).encode("utf-8", "surrogateescape")
    keys = (key for key in field_types(type(settings)) if key not in _FREE)
    values = {key: getattr(settings, key) for key in keys if not key.startswith(_NO_ROWS)}
    facts = {
        "rtdetr": VERSION,
        **values,
        "model_sha256": sums[0] if len(sums) == 1 else sums,
        "files": len(files),
        "files_sha256": hashlib.sha256(names).hexdigest(),
    }
    same: dict[str, Any] = json.loads(json.dumps(facts))  # as it is read again
    return same


def _require_same(folder: Folder, run: Path) -> None:
    """Check that run.json holds the arguments of this run.

    Raises:
        UsageError: it holds others.
    """
    try:
        there = json.loads(run.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{run} cannot be read ({error}); give another folder") from None
    there = there if isinstance(there, dict) else {}
    keys = [key for key in {**folder.facts, **there} if key != "model"]  # its checksum counts
    other = next((key for key in keys if there.get(key) != folder.facts.get(key)), None)
    if other is not None:
        is_list = other == "files_sha256"
        differs = (
            "the names of the files differ"
            if is_list
            else (f"{other} was {there.get(other)} and is {folder.facts.get(other)}")
        )
        raise UsageError(f"out={folder.path} holds results of another run: {differs}")


def _refuse_unasked(folder: Folder, numbers: range, settings: PredictSettings) -> None:
    """Check that no part of this share exists unless the run is resumed.

    Raises:
        UsageError: some exist.
    """
    there = sum(folder.part(number).exists() for number in numbers)
    if there and not settings.resume:
        raise UsageError(
            f"out={settings.out}: {counted(there, 'file')} of {len(numbers)} exist already; "
            "resume=true continues, or give another folder"
        )


def _is_done(folder: Folder, number: int, sums: dict[str, str], totals: Totals) -> bool:
    """Whether a part is there; a damaged one is named and will be written again."""
    if not folder.part(number).exists():
        return False
    try:
        entry = _entry(folder, number)
    except DataError as error:
        warn(f"{error}; it is written again")
        return False
    if sums.get(entry["file"], entry["sha256"]) != entry["sha256"]:
        part = folder.part(number)
        warn(f"{part}: its checksum is not that of manifest.json; it is written again")
        return False
    totals.read += entry["rows"] - entry["errors"]
    totals.errors += entry["errors"]
    return True


def _entry(folder: Folder, number: int) -> dict[str, Any]:
    """A part's line of the manifest.

    Raises:
        DataError: it is damaged, or holds other images.
    """
    part = folder.part(number)
    found = read_summary(part)
    wanted = [_utf8(path) for path in folder.sources(number)]
    if [_utf8(path) for path in found.paths] != wanted:
        raise DataError(f"{part} is damaged (its rows are not those of its {len(wanted)} files)")
    entry = {"file": part.name, "files": len(wanted), "rows": found.rows, "errors": found.errors}
    return {**entry, "bytes": part.stat().st_size, "sha256": sha256(part)}


def _listed_sums(folder: Folder) -> dict[str, str]:
    """Checksum of each part in the manifest of an earlier run; empty without one."""
    try:
        listed = json.loads((folder.path / "manifest.json").read_bytes())["parts"]
        return {str(entry["file"]): str(entry["sha256"]) for entry in listed}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _utf8(path: str | Path) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode()


def _write_parts(
    folder: Folder,
    numbers: list[int],
    predict: Predict,
    totals: Totals,
    settings: PredictSettings,
) -> None:
    """Write parts one after the other."""
    start, before = time.perf_counter(), totals.read

    def status() -> Status:
        pace = (totals.read - before) / (time.perf_counter() - start)
        return Status(beside=[f"{totals.read + totals.errors} rows, {pace:.1f} images/s"])

    for number in progress(numbers, len(numbers), str(settings.out), status, unit="file"):
        read = partial(read_file, stride=settings.vid_stride, by_parts=settings.tiles is not None)
        entries = [partial(read, path) for path in folder.sources(number)]
        with atomic_write(folder.part(number)) as temporary:
            rows = _counted(predict(Source(entries, len(entries))), totals)
            write_rows(temporary, rows, folder.form)


def _counted(outcomes: Iterator[Outcome], totals: Totals) -> Iterator[Row]:
    """The rows of outcomes, which are added to the totals; unreadable images are named."""
    for item, outcome in outcomes:
        totals.add(item, outcome)
        if item.image is None:
            warn(item.error)
        yield timeless_row(item, outcome)


def _finish(folder: Folder) -> None:
    """Write the manifest once all parts are there; the process that ends last does.

    Raises:
        DataError: a part is damaged.
    """
    if not all(folder.part(number).exists() for number in range(len(folder))):
        return
    _require_same(folder, folder.path / "run.json")
    entries = [_entry(folder, number) for number in range(len(folder))]
    sums = {key: sum(entry[key] for entry in entries) for key in ("rows", "errors")}
    _write_json(folder.path / "manifest.json", {"run": folder.facts, **sums, "parts": entries})
    for name in (".part-*", ".run-*", ".share-*"):  # of processes that were killed
        for left in folder.path.glob(name):
            left.unlink(missing_ok=True)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
