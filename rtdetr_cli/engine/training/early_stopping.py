"""How long a run is: epochs that its hours hold, no better AP for long, the hours are over."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.console import say
from rtdetr_cli.engine.training.run import Progress
from rtdetr_cli.engine.training.run_log import Row

MEASURED_SHARE = 0.05
"""Share of the hours that is spent before the pace of its epochs decides on their number."""
clock = time.perf_counter


class Stopper:
    """Watches the clock and the AP of a run.

    The clock goes on from what earlier processes trained, so that a resumed run has one budget.
    """

    def __init__(self, settings: TrainSettings, progress: Progress) -> None:
        self._settings = settings
        earlier = sum(row["time"] for row in progress.rows)
        self._budget = 3600 * settings.time if settings.time is not None else None
        # The epoch under way began so long ago, the run longer.
        self._ends = [clock() - progress.sums.seconds]
        self._start = self._ends[0] - earlier
        self._is_late = False

    def time_is_over(self) -> bool:
        """Read the clock, once an epoch: what it says then is what `reason` goes by."""
        self._is_late = self._budget is not None and clock() - self._start >= self._budget
        return self._is_late

    def epochs_that_fit(self, done: int) -> int | None:
        """How many epochs the hours hold, at the end of one; None where that is not to be said.

        The first epoch of a process is left out of the pace if there are others: it is slower.

        Args:
            done: epochs of the run that have ended.
        """
        self._ends.append(clock())
        if self._budget is None or self._is_late:
            return None
        left = self._budget - (self._ends[-1] - self._start)
        if left > (1 - MEASURED_SHARE) * self._budget:
            return None
        counted = self._ends[1:] if len(self._ends) > 2 else self._ends
        pace = (counted[-1] - counted[0]) / (len(counted) - 1)
        epochs = done + max(1, int(left / pace))
        say(f"{pace:.3g} s an epoch: time={self._settings.time:g} hours hold {epochs} epochs")
        return epochs

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
