"""Print what a prediction finds: a line per image or clip or JSON on stdout, progress on stderr."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count, groupby
from pathlib import Path
from typing import Any, TypeAlias

from rtdetr_cli.core.console import progress, result, result_json, warn
from rtdetr_cli.core.results import Results, counted_names
from rtdetr_cli.core.status import Status, counted
from rtdetr_cli.media.item import Clip, SourceImage

Outcome: TypeAlias = "tuple[SourceImage, Any]"
"""An image or frame of the source, and its Results; the image itself if it cannot be read."""


@dataclass
class Totals:
    """What a run has found.

    Attributes:
        read: number of images and frames.
        errors: number of those that cannot be read; damaged clips count as well.
        first_error: of the first one.
        speed: sums of the milliseconds of each stage.
        save_dir: the run folder, if there is one.
    """

    read: int = 0
    errors: int = 0
    first_error: str = ""
    speed: Counter[str] = field(default_factory=Counter)
    save_dir: str | None = None

    def add(self, item: SourceImage, outcome: object) -> None:
        """Count an outcome; callbacks may have replaced Results by something else."""
        if item.image is None:
            self.errors += 1
            self.first_error = self.first_error or item.error
            return
        self.read += 1
        if isinstance(outcome, Results):
            self.speed.update(outcome.speed)
            self.save_dir = outcome.save_dir or self.save_dir


def print_outcomes(
    outcomes: Iterable[Outcome], totals: Totals, total: int | None, as_json: bool | str
) -> None:
    """Print the outcomes as they come. An error that is the only one is left to the caller.

    Args:
        outcomes: in the order of the source.
        totals: what has been found is added to it.
        total: number of images and clips, if known.
        as_json: one JSON array on stdout instead of lines; `lines`: an object per line.
    """
    array, ordinals = _JsonLines() if as_json == "lines" else _JsonArray(), count()

    def group(outcome: Outcome) -> object:
        clip = outcome[0].clip
        return next(ordinals) if clip is None else "live" if clip.is_live else id(clip)

    try:
        for number, (_, found) in enumerate(groupby(outcomes, group), start=1):
            place = f"{number}" if total is None else f"{number}/{total}"
            for item, outcome in _printed(found, place, bool(as_json)):
                totals.add(item, outcome)
                if as_json:
                    array.add(row(item, outcome))
                if item.image is None and (totals.read or total != 1):
                    warn(item.error)
    finally:
        if as_json:
            array.end()


def describe(results: Results) -> str:
    """One line: `bus.jpg: 810x1080 4 persons, 1 bus, 512.3 ms`."""
    height, width = results.orig_shape
    milliseconds = results.speed["inference"]
    frame = "" if results.frame is None else f" frame {results.frame}"
    return f"{results.path}{frame}: {width}x{height} {results.verbose()}{milliseconds:.1f} ms"


def row(item: SourceImage, outcome: object) -> dict[str, Any]:
    """One image or frame as printed by `json=true`."""
    head: dict[str, Any] = {"path": item.path}
    if not isinstance(outcome, Results):
        return {**head, "error": item.error}
    height, width = outcome.orig_shape
    if item.frame is not None:
        head |= {"frame": item.frame, "time_s": round(item.time_s or 0, 6)}
    return {
        **head,
        "width": width,
        "height": height,
        "speed": {stage: round(value, 3) for stage, value in outcome.speed.items()},
        "detections": outcome.summary(),
    }


def _printed(found: Iterator[Outcome], place: str, as_json: bool) -> Iterator[Outcome]:
    """Yield the outcomes of an image or a clip and print its line."""
    first = next(found)
    item, outcome = first
    if item.clip is not None:
        yield from _clip_printed(chain([first], found), item.clip, place, as_json)
        return
    if isinstance(outcome, Results) and not as_json:
        result(f"image {place} {describe(outcome)}")
    yield first


def _clip_printed(
    found: Iterator[Outcome], clip: Clip, place: str, as_json: bool
) -> Iterator[Outcome]:
    """Yield the outcomes of a clip, or of several streams at once, and print a line for each."""
    start = time.perf_counter()
    tallies: dict[str, _Tally] = {}
    speed: Counter[str] = Counter()

    def pace(*some: _Tally) -> str:
        frames = sum(tally.frames for tally in some)
        return f"{frames / (time.perf_counter() - start):.1f} frames/s"

    def status() -> Status:
        return Status(beside=[pace(*tallies.values()), _shares(speed, time.perf_counter() - start)])

    label = "streams" if clip.is_live else Path(clip.path).name
    texts = progress(found, clip.total, label, status, unit="frame")
    try:
        for item, outcome in texts:
            if isinstance(outcome, Results):  # counted first: it is in the annotated video
                tallies.setdefault(item.path, _Tally()).add(outcome)
                speed.update(outcome.speed)
            yield item, outcome
    finally:
        if not as_json:
            head = "stream" if clip.is_live else f"video {place}"
            for path, tally in tallies.items():
                result(f"{head} {path}: {tally}, {pace(tally)}")


def _shares(speed: Counter[str], seconds: float) -> str:
    """`preprocess 8 %, inference 83 %`: of the time since the start; stages overlap."""
    shares = (f"{stage} {sum_ / 10 / seconds:.0f} %" for stage, sum_ in speed.items())
    return ", ".join(shares)


class _Tally:
    """Counts of a clip: frames, and boxes of each class; tracks instead of boxes if it has any.

    A track counts with the class of its first box. New ids are greater than all before, so that
    no set of ids is kept.
    """

    def __init__(self) -> None:
        self.frames, self.boxes, self._last_id = 0, Counter[int](), 0

    def add(self, results: Results) -> None:
        self.frames, self.names = self.frames + 1, results.names
        self.size_hw = results.orig_shape
        boxes = results.boxes
        if boxes.id is not None:
            boxes = boxes[boxes.id > self._last_id]
            self._last_id = max([self._last_id, *map(int, boxes.data[:, 4])])
        self.boxes.update(int(label) for label in boxes.cls.tolist())

    def __str__(self) -> str:
        height, width = self.size_hw
        found = counted_names(self.boxes, self.names).removesuffix(", ")
        return f"{counted(self.frames, 'frame')} {width}x{height}, {found}"


class _JsonLines:
    """Prints each row in a line of its own."""

    def add(self, values: dict[str, Any]) -> None:
        """Print a row."""
        result_json(json.dumps(values, ensure_ascii=False, separators=(",", ":")))

    def end(self) -> None:
        """Nothing follows the last row."""


class _JsonArray:
    """Prints the rows of a JSON array as they come, so that none is kept."""

    def __init__(self) -> None:
        self._last = ""

    def add(self, values: dict[str, Any]) -> None:
        """Print the previous row, with a comma after it."""
        result_json(f"{self._last}," if self._last else "[")
        text = json.dumps(values, indent=2, ensure_ascii=False)
        self._last = "\n".join(f"  {line}" for line in text.split("\n"))

    def end(self) -> None:
        """Print the last row and the end of the array, if it has any."""
        if self._last:
            result_json(f"{self._last}\n]")
