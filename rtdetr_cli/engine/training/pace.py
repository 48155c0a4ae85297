"""How long a run has taken and how long it will still take."""

from __future__ import annotations

import math
import time

from rtdetr_cli.config.settings.train import TrainSettings

clock = time.perf_counter


class Pace:
    """Measures a run: its steps are in the rows of its epochs, what follows them is timed here.

    Attributes:
        start: the time at which the run would have started without interruption.
    """

    def __init__(self) -> None:
        self.start = self._trained = clock()
        self._after = {True: (0, 0.0), False: (0, 0.0)}  # validated or not: epochs, seconds

    def count_earlier(self, seconds: float) -> None:
        """Include the steps of earlier processes."""
        self.start -= seconds

    def steps_end(self) -> None:
        """The last step of an epoch is done."""
        self._trained = clock()

    def epoch_ends(self, is_validated: bool) -> None:
        """The epoch has been validated, or not, and saved."""
        epochs, seconds = self._after[is_validated]
        self._after[is_validated] = epochs + 1, seconds + clock() - self._trained

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return clock() - self.start

    def seconds_left(
        self, settings: TrainSettings, epoch: int, steps_left: int, seconds_per_step: float
    ) -> float:
        """Estimate the seconds to the end of the run.

        The validations count as soon as this process has seen one; the best weights are validated
        once more at the end.

        Args:
            settings: of the run.
            epoch: epochs done.
            steps_left: in all epochs.
            seconds_per_step: as measured.
        """
        validations = num_validations(settings, settings.epochs) - num_validations(settings, epoch)
        seconds = seconds_per_step * steps_left
        seconds += (validations + settings.val) * self._mean_after(True)
        seconds += (settings.epochs - epoch - validations) * self._mean_after(False)
        return min(seconds, self.budget_left(settings))

    def budget_left(self, settings: TrainSettings) -> float:
        """Seconds left of `time`; infinite without."""
        return math.inf if settings.time is None else max(0, 3600 * settings.time - self.elapsed)

    def _mean_after(self, is_validated: bool) -> float:
        epochs, seconds = self._after[is_validated]
        return seconds / max(epochs, 1)


def num_validations(settings: TrainSettings, epochs: int) -> int:
    """Validations in the first epochs of a run."""
    if not settings.val:
        return 0
    is_last_extra = epochs == settings.epochs and epochs % settings.val_every != 0
    return epochs // settings.val_every + is_last_extra
