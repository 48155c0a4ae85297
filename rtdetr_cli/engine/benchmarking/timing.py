"""The race of `rtdetr benchmark`: a process for each row, timed in turns.

The speed of a machine drifts by more than formats differ, hence the turns; worker.py is what
runs in each process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from rtdetr_cli.config.settings.benchmark import BenchmarkSettings
from rtdetr_cli.core.console import progress
from rtdetr_cli.engine.benchmarking.rows import Row

CALLS_IN_TURN = 5
"""Calls of one format before the next one has its turn."""
WARM_UP = 3
BATCH_TURNS = 3


def race(rows: list[Row], settings: BenchmarkSettings, size_hw: tuple[int, int]) -> list[Row]:
    """Time all that run, in turns: single images first, then batches."""
    contestants: list[Contestant] = []
    try:
        for row in rows:
            contestants.append(Contestant(row, settings, size_hw))
            contestants[-1].run(WARM_UP)
        turns = -(-settings.runs // CALLS_IN_TURN)
        for _ in progress(range(turns), turns, "benchmark"):
            for one in contestants:
                one.times_ms += one.run(CALLS_IN_TURN)
        peaks = [one.peak_bytes for one in contestants]
        for turn in range(1 + BATCH_TURNS):
            for one in contestants:
                times_ms = one.run(1, settings.batch)
                one.batch_times_ms += times_ms if turn else []  # the first one warms up
    finally:
        for one in contestants:
            one.close()
    pairs = zip(contestants, peaks, strict=True)
    return [_timed(one, peak_bytes, settings.batch) for one, peak_bytes in pairs]


def _timed(contestant: Contestant, peak_bytes: int | None, batch: int) -> Row:
    if contestant.row.reason:
        return contestant.row
    p50, p90, p99 = np.percentile(contestant.times_ms, [50, 90, 99]).tolist()
    return replace(
        contestant.row,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        per_second=1000 * batch / median(contestant.batch_times_ms),
        memory_mb=None if peak_bytes is None else peak_bytes / 1e6,
    )


class Contestant:
    """A process that runs one file when it is told to; once it has failed it rests.

    Attributes:
        row: what it runs; the reason once it has failed.
        times_ms: of single images.
        batch_times_ms: of batches.
        peak_bytes: of its memory so far.
    """

    def __init__(self, row: Row, settings: BenchmarkSettings, size_hw: tuple[int, int]) -> None:
        self.row = row
        self.times_ms: list[float] = []
        self.batch_times_ms: list[float] = []
        self.peak_bytes: int | None = None
        if row.reason:
            return
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rtdetr_cli.engine.benchmarking.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._tell(
            {
                "model": row.path,
                "device": settings.device,
                "half": row.format == "torch-half",
                "timeout": settings.timeout,
                "size_hw": size_hw,
            }
        )

    def run(self, calls: int, batch: int = 1) -> list[float]:
        """Times in milliseconds; none once it has failed."""
        answer = {} if self.row.reason else self._tell({"batch": batch, "calls": calls})
        self.peak_bytes = answer.get("peak_bytes", self.peak_bytes)
        times_ms: list[float] = answer.get("times_ms", [])
        return times_ms

    def close(self) -> None:
        """End the process."""
        if hasattr(self, "_process"):
            self._process.communicate()

    def _tell(self, order: dict[str, Any]) -> dict[str, Any]:
        """Hand an order over and wait; a failure becomes the row's reason."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin
        assert stdout
        with suppress(BrokenPipeError):  # then it answers nothing either
            stdin.write(json.dumps(order) + "\n")
            stdin.flush()
        line = stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "its process died"}
        if "error" in answer:
            self.row = replace(self.row, reason=answer["error"])
        return answer
