"""Forward the events of a run to the user's callbacks and to the loggers of `logger=`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rtdetr_cli.core.distributed import is_main_process, run_on_main
from rtdetr_cli.engine.training.callbacks import Callbacks, TrainState
from rtdetr_cli.engine.training.loggers import Loggers
from rtdetr_cli.engine.training.run import Run
from rtdetr_cli.engine.training.run_log import Row, primitives


class TrainEvents:
    """Calls the listeners of each event; only those of the main process exist."""

    def __init__(self, run: Run, callbacks: Callbacks) -> None:
        self._run, self._callbacks = run, callbacks
        self._state = TrainState(run.settings, run.run_dir, run.progress.epoch, run.settings.epochs)

    def train_start(self) -> None:
        """Before the first step."""
        self._callbacks.call("on_train_start", self._state)

    def epoch_end(self, row: Row) -> None:
        """After an epoch has been validated and saved."""
        state, run = self._state, self._run
        state.epoch, state.epochs = run.progress.epoch - 1, run.settings.epochs
        state.metrics = dict(row)
        self._callbacks.call("on_fit_epoch_end", state)

    def train_end(self, metrics: dict[str, float]) -> None:
        """After the best weights have been scored."""
        self._state.metrics = dict(metrics)
        self._callbacks.call("on_train_end", self._state)

    def should_stop(self) -> bool:
        """Whether a callback has set `state.stop`. Every process must call it."""
        return run_on_main(lambda: self._state.stop)


@contextmanager
def train_events(run: Run, callbacks: Callbacks) -> Iterator[TrainEvents]:
    """Start the loggers and forward events to them; stop them when the run ends.

    Raises:
        UsageError: a logger cannot write to where its environment points.
    """
    listeners = callbacks.copy() if is_main_process() else Callbacks()
    loggers = Loggers(run.settings.logger or () if is_main_process() else ())
    settings, is_resumed = primitives(run.settings), run.progress.step > 0
    run_on_main(lambda: loggers.start(run.run_dir, settings, is_resumed))
    listeners.add("on_fit_epoch_end", lambda state: loggers.epoch(state.epoch + 1, state.metrics))
    listeners.add("on_train_end", lambda state: loggers.finish(state.metrics, run.run_dir))
    try:
        yield TrainEvents(run, listeners)
    finally:
        loggers.stop()
