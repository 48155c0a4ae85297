"""What a run tells others while it goes on: functions of the user, and loggers.py.

One mechanism for both: an event has a name and calls the functions that are registered for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.errors import UsageError, nearest
from rtdetr_cli.engine.training.run_log import Row

EVENTS = ("on_train_start", "on_fit_epoch_end", "on_train_end")


@dataclass
class TrainState:
    """What a callback gets; the names are those of Ultralytics' trainer.

    Attributes:
        args: the settings of the run.
        save_dir: its folder.
        epoch: the epoch that has just ended, counted from 0.
        epochs: how many there will be.
        metrics: the epoch's row of results.csv; the final metrics at the end.
        stop: set it to end the run after this epoch.
    """

    args: TrainSettings
    save_dir: Path
    epoch: int
    epochs: int
    metrics: Row = field(default_factory=dict)
    stop: bool = False


Callback = Callable[[TrainState], None]


class Callbacks:
    """Functions by event, called in the order in which they were added."""

    def __init__(self) -> None:
        self._functions: list[tuple[str, Callback]] = []

    def add(self, event: str, function: Callback) -> None:
        """Register a function.

        Raises:
            UsageError: there is no such event.
        """
        if event not in EVENTS:
            hint = nearest(event, EVENTS) or f"; events are {', '.join(EVENTS)}"
            raise UsageError(f"add_callback: {event} is no event{hint}")
        self._functions.append((event, function))

    def __bool__(self) -> bool:
        return bool(self._functions)

    def copy(self) -> Callbacks:
        """Another object with the same functions."""
        other = Callbacks()
        other._functions = list(self._functions)
        return other

    def call(self, event: str, state: TrainState) -> None:
        """Tell everybody who asked for an event."""
        for wanted, function in self._functions:
            if wanted == event:
                function(state)
