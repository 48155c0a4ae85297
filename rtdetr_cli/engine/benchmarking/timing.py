"""Timing of `rtdetr benchmark`: one process per row, interleaved.

The speed of a machine drifts by more than formats differ, hence the interleaving; each process
runs worker.py.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from rtdetr_cli.config.settings.benchmark import BenchmarkSettings
from rtdetr_cli.core.console import progress
from rtdetr_cli.engine.benchmarking.process import WorkerProcess
from rtdetr_cli.engine.benchmarking.rows import Row

CALLS_PER_TURN = 5
"""Consecutive calls of one format before the next one runs."""
WARM_UP = 3
BATCH_TURNS = 3


def time_rows(rows: list[Row], settings: BenchmarkSettings, size_hw: tuple[int, int]) -> list[Row]:
    """Time all runnable rows, interleaved: single images first, then batches."""
    workers: list[Worker] = []
    try:
        for row in rows:
            workers.append(Worker(row, settings, size_hw))
            workers[-1].run(WARM_UP)
        turns = -(-settings.runs // CALLS_PER_TURN)
        for _ in progress(range(turns), turns, "benchmark"):
            for one in workers:
                one.times_ms += one.run(CALLS_PER_TURN)
        peaks = [one.peak_bytes for one in workers]
        for turn in range(1 + BATCH_TURNS):
            for one in workers:
                times_ms = one.run(1, settings.batch)
                one.batch_times_ms += times_ms if turn else []  # the first turn warms up
    finally:
        for one in workers:
            one.close()
    pairs = zip(workers, peaks, strict=True)
    return [_timed(one, peak_bytes, settings.batch) for one, peak_bytes in pairs]


def _timed(worker: Worker, peak_bytes: int | None, batch: int) -> Row:
    if worker.row.reason:
        return worker.row
    p50, p90, p99 = np.percentile(worker.times_ms, [50, 90, 99]).tolist()
    return replace(
        worker.row,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        per_second=1000 * batch / median(worker.batch_times_ms),
        memory_mb=None if peak_bytes is None else peak_bytes / 1e6,
    )


class Worker:
    """A worker process for one row; idle after its first failure.

    Attributes:
        row: the row it runs; has the reason after a failure.
        times_ms: times of single images.
        batch_times_ms: times of batches.
        peak_bytes: its peak memory so far.
    """

    def __init__(self, row: Row, settings: BenchmarkSettings, size_hw: tuple[int, int]) -> None:
        self.row = row
        self.times_ms: list[float] = []
        self.batch_times_ms: list[float] = []
        self.peak_bytes: int | None = None
        if row.reason:
            return
        self._process = WorkerProcess()
        self._request(
            {
                "model": row.path,
                "device": settings.device,
                "half": row.format == "torch-half",
                "timeout": settings.timeout,
                "size_hw": size_hw,
            }
        )

    def run(self, calls: int, batch: int = 1) -> list[float]:
        """Times in milliseconds; empty after a failure."""
        reply = {} if self.row.reason else self._request({"batch": batch, "calls": calls})
        self.peak_bytes = reply.get("peak_bytes", self.peak_bytes)
        times_ms: list[float] = reply.get("times_ms", [])
        return times_ms

    def close(self) -> None:
        """End the process."""
        if hasattr(self, "_process"):
            self._process.close()

    def _request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for its reply; a failure becomes the row's reason."""
        reply = self._process.ask(request)
        if "error" in reply:
            self.row = replace(self.row, reason=reply["error"])
        return reply
