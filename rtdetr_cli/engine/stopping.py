"""When a run ends before its last epoch: no better AP for long, or the hours are over."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rtdetr_cli.config.settings import TrainSettings
from rtdetr_cli.engine.run_log import Row


class Stopper:
    """Watches the clock and the AP of a run.

    The clock goes on from the epochs that are logged already, so that a resumed run has one budget.
    """

    def __init__(self, settings: TrainSettings, rows: Sequence[Row]) -> None:
        self._settings = settings
        self._start = time.perf_counter() - sum(row["time"] for row in rows)
        self._is_late = False

    def time_is_over(self) -> bool:
        """Read the clock, once an epoch: what it says then is what `reason` goes by."""
        budget = self._settings.time
        spent = (time.perf_counter() - self._start) / 3600
        self._is_late = budget is not None and spent >= budget
        return self._is_late

    def reason(self, rows: Sequence[Row]) -> str | None:
        """Why the run ends after these epochs, as a sentence, or None."""
        if self._is_late:
            return f"time={self._settings.time:g} hours are over; the run ends here"
        best = max((row for row in rows if "metrics/AP" in row), key=_ap, default=None)
        if best is None or not self._settings.patience:
            return None
        waited = rows[-1]["epoch"] - best["epoch"]
        if waited < self._settings.patience:
            return None
        return (
            f"no better AP than {_ap(best):.4f} of epoch {best['epoch']:.0f} in {waited:.0f} "
            f"epochs (patience={self._settings.patience}); the run ends here"
        )


def _ap(row: Row) -> float:
    return row["metrics/AP"]
