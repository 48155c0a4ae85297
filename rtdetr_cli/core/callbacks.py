"""Callbacks: functions registered for an event, called with the state of the run when it occurs.

The names are those of Ultralytics. The states are with their modes: TrainState in
engine/training/events.py, ValState, PredictState and ExportState in engine/.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

from rtdetr_cli.core.errors import UsageError, nearest

TRAIN_EVENTS = (
    "on_pretrain_routine_start",
    "on_pretrain_routine_end",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_before_zero_grad",
    "optimizer_step",
    "on_params_update",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_model_save",
    "on_fit_epoch_end",
    "on_train_end",
    "teardown",
)
VAL_EVENTS = ("on_val_start", "on_val_batch_start", "on_val_batch_end", "on_val_end")
PREDICT_EVENTS = (
    "on_predict_start",
    "on_predict_batch_start",
    "on_predict_postprocess_end",
    "on_predict_batch_end",
    "on_predict_end",
)
EXPORT_EVENTS = ("on_export_start", "on_export_end")
EVENTS = (*TRAIN_EVENTS, *VAL_EVENTS, *PREDICT_EVENTS, *EXPORT_EVENTS)
"""All events, in the order in which they occur."""

Callback = Callable[[Any], object]
"""Receives the state of the run; what it returns has no effect."""


class Callbacks:
    """Functions by event, called in the order they were added."""

    def __init__(self) -> None:
        self.functions: dict[str, list[Callback]] = {event: [] for event in EVENTS}

    def add(self, event: str, function: Callback) -> None:
        """Register a function.

        Raises:
            UsageError: the event does not exist.
        """
        self._of("add_callback", event).append(function)

    def clear(self, event: str) -> None:
        """Remove the functions of an event.

        Raises:
            UsageError: the event does not exist.
        """
        self._of("clear_callback", event).clear()

    def copy(self) -> Callbacks:
        """A copy with the same functions."""
        other = Callbacks()
        other.functions = {event: list(functions) for event, functions in self.functions.items()}
        return other

    def has(self, *events: str) -> bool:
        """Whether a function is registered for one of these events."""
        return any(self.functions[event] for event in events)

    def call(self, event: str, state: object) -> None:
        """Call the functions of an event.

        Raises:
            UsageError: one of them changes the settings.
        """
        for function in self.functions[event]:
            try:
                function(state)
            except FrozenInstanceError as error:
                raise UsageError(
                    f"a callback of {event} changes a setting ({error}); settings hold for the "
                    "whole run, give them to the call"
                ) from error

    def _of(self, method: str, event: str) -> list[Callback]:
        if event not in self.functions:
            hint = nearest(event, EVENTS) or f"; events are {', '.join(EVENTS)}"
            raise UsageError(f"{method}: {event} is not an event{hint}")
        return self.functions[event]
