"""When a run ends: its patience or its hours are over; how many epochs fit into its hours."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.console import say
from rtdetr_cli.core.distributed import main_process_only
from rtdetr_cli.engine.training.run import Progress
from rtdetr_cli.engine.training.run_log import Row

MEASURED_SHARE = 0.05
"""Share of the hours that must have passed before the pace of the epochs sets their number."""
clock = time.perf_counter


class Stopper:
    """Watches the clock and the AP of a run; every process gets the decision of the main one.

    The clock includes the time of earlier processes, so that a resumed run keeps its budget.
    """

    def __init__(self, settings: TrainSettings, progress: Progress) -> None:
        self._settings = settings
        earlier = sum(row["time"] for row in progress.rows)
        self._budget = 3600 * settings.time if settings.time is not None else None
        # Start of the current epoch, then the end of each epoch; the run started earlier.
        self._ends = [clock() - progress.sums.seconds]
        self._start = self._ends[0] - earlier
        self._is_late = False

    @main_process_only
    def time_is_over(self) -> bool:
        """Read the clock, once per epoch; `reason` uses this reading."""
        self._is_late = self._budget is not None and clock() - self._start >= self._budget
        return self._is_late

    @main_process_only
    def epochs_that_fit(self, done: int) -> int | None:
        """Number of epochs that fit into the hours, called at the end of each; None if unknown yet.

        The first epoch of a process is slower and is left out of the pace if there are others.

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

    @main_process_only
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
