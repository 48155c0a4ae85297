"""Callbacks: functions registered for an event of a training run, called when it occurs."""

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
    """The argument of a callback; attribute names follow Ultralytics' trainer.

    Attributes:
        args: the settings of the run.
        save_dir: the run folder.
        epoch: the epoch that has ended, counted from 0.
        epochs: number of epochs of the run.
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
    """Functions by event, called in the order they were added."""

    def __init__(self) -> None:
        self._functions: list[tuple[str, Callback]] = []

    def add(self, event: str, function: Callback) -> None:
        """Register a function.

        Raises:
            UsageError: the event does not exist.
        """
        if event not in EVENTS:
            hint = nearest(event, EVENTS) or f"; events are {', '.join(EVENTS)}"
            raise UsageError(f"add_callback: {event} is no event{hint}")
        self._functions.append((event, function))

    def __bool__(self) -> bool:
        return bool(self._functions)

    def copy(self) -> Callbacks:
        """A copy with the same functions."""
        other = Callbacks()
        other._functions = list(self._functions)
        return other

    def call(self, event: str, state: TrainState) -> None:
        """Call the functions of an event."""
        for wanted, function in self._functions:
            if wanted == event:
                function(state)
