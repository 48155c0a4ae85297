"""Forward the events of a run to the user's callbacks and to the loggers of `logger=`.

Only the main process has callbacks. One that raises ends the run; between two steps the state is
saved first, so that the run can be resumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.callbacks import Callbacks
from rtdetr_cli.core.console import say
from rtdetr_cli.core.distributed import is_main_process, run_on_main
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.core.structures import Batch
from rtdetr_cli.engine.training.ema import EMA
from rtdetr_cli.engine.training.loggers import Loggers
from rtdetr_cli.engine.training.resume import LAST, run_checkpoint, save_last
from rtdetr_cli.engine.training.run import Run
from rtdetr_cli.engine.training.run_log import Row, primitives
from rtdetr_cli.nn.rtdetr import RTDETRNetwork


class TrainState:
    """The argument of a training callback; attribute names follow Ultralytics' trainer.

    `model`, `ema`, `optimizer`, `lr`, `tloss`, `batch`, `validator` and losses are there during the
    run only.

    Attributes:
        args: the settings of the run.
        save_dir: the run folder; None before on_pretrain_routine_end.
        epoch: the current epoch, counted from 0; in on_fit_epoch_end the one that has ended.
        start_epoch: the first epoch of this process, above 0 in a resumed run.
        epochs: number of epochs of the run.
        batch: the batches of the current step, `accumulate` of them.
        loss: the loss of the last step, detached; None if the step was skipped.
        loss_items: the same with its terms by name.
        metrics: the epoch's row of results.csv; the final metrics at the end.
        fitness: AP of the last validation; None before it.
        best_fitness: the best AP so far; -1 before the first validation.
        validator: the ValState of the last validation, with its `metrics`; None before it.
        stop: set it to end the run after this epoch.
    """

    def __init__(self, args: TrainSettings) -> None:
        self.args = args
        self.save_dir: Path | None = None
        self.epoch = self.start_epoch = 0
        self.epochs = args.epochs
        self.batch: list[Batch] = []
        self.loss: Tensor | None = None
        self.loss_items: dict[str, Tensor] = {}
        self.metrics: Row = {}
        self.fitness: float | None = None
        self.best_fitness = -1.0
        self.validator: Any = None
        self.stop = False
        self._run: Run | None = None

    def follow(self, run: Run | None) -> None:
        """Give access to the parts of a run; None ends it and frees their memory."""
        self._run, self.batch, self.loss, self.loss_items = run, [], None, {}
        self.validator = None
        if run is not None:
            self.args, self.save_dir = run.settings, run.run_dir
            self.epoch = self.start_epoch = run.progress.epoch

    @property
    def wdir(self) -> Path:
        """The folder of the weights."""
        if self.save_dir is None:
            raise AttributeError("the run folder exists from on_pretrain_routine_end on")
        return self.save_dir / "weights"

    @property
    def best(self) -> Path:
        """Path of the best weights; written when a validation is the best so far."""
        return self.wdir / "best.pt"

    @property
    def last(self) -> Path:
        """Path of the state to resume."""
        return self.wdir / LAST

    @property
    def csv(self) -> Path:
        """Path of results.csv."""
        return self.wdir.with_name("results.csv")

    @property
    def model(self) -> RTDETRNetwork:
        """The network that is being trained."""
        return self._running().network

    @property
    def ema(self) -> EMA:
        """The average of its weights; `ema.network` is validated and saved."""
        return self._running().ema

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer; resuming restores its moments and learning rates only."""
        return self._running().optimizer

    @property
    def lr(self) -> dict[str, float]:
        """Learning rate of each group of parameters: lr/pg0, lr/pg1..."""
        groups = self.optimizer.param_groups
        return {f"lr/pg{number}": group["lr"] for number, group in enumerate(groups)}

    @property
    def tloss(self) -> Row:
        """Mean of each loss over the epoch so far, as in results.csv."""
        return self._running().progress.sums.means()

    def _running(self) -> Run:
        if self._run is None:
            raise AttributeError("the parts of a run exist from its start to its end only")
        return self._run


class TrainEvents:
    """Calls the listeners of each event; only those of the main process exist.

    Attributes:
        callbacks: the listeners.
        state: their argument.
    """

    def __init__(self, settings: TrainSettings, callbacks: Callbacks) -> None:
        self.callbacks = callbacks.copy() if is_main_process() else Callbacks()
        self.state = TrainState(settings)
        self.callbacks.add("on_val_end", lambda val: setattr(self.state, "validator", val))
        self.callbacks.call("on_pretrain_routine_start", self.state)

    @contextmanager
    def follow(self, run: Run) -> Iterator[None]:
        """Start the loggers and forward the events of a run; stop them when it ends.

        Raises:
            UsageError: a logger cannot write to where its environment points.
        """
        loggers = Loggers(run.settings.logger or () if is_main_process() else ())
        settings, is_resumed = primitives(run.settings), run.progress.step > 0
        run_on_main(lambda: loggers.start(run.run_dir, settings, is_resumed))
        self.callbacks.add("on_fit_epoch_end", lambda on: loggers.epoch(on.epoch + 1, on.metrics))
        self.callbacks.add("on_train_end", lambda on: loggers.finish(on.metrics, run.run_dir))
        self._run, run.notify = run, self._within_step
        self.state.follow(run)
        try:
            self._call("on_pretrain_routine_end")
            self._call("on_train_start")
            yield
        finally:
            loggers.stop()
            self.callbacks.call("teardown", self.state)
            self.state.follow(None)

    def epoch_start(self) -> None:
        """Before the first step of an epoch, or its first one after a resume."""
        self.state.epoch, self.state.epochs = self._run.progress.epoch, self._run.settings.epochs
        if self.callbacks.has("on_train_epoch_start"):
            self._call("on_train_epoch_start")
            self._refuse_thawed()

    def batch_start(self, batches: list[Batch]) -> None:
        """Before a step."""
        self.state.batch = batches
        self._call("on_train_batch_start")

    def batch_end(self, losses: dict[str, Tensor] | None) -> None:
        """After a step; its losses are None if it was skipped."""
        self.state.loss_items = losses or {}
        self.state.loss = self.state.loss_items.get("loss")
        self._call("on_train_batch_end")

    def steps_end(self, row: Row) -> None:
        """After the last step of an epoch, before its validation."""
        self.state.metrics = dict(row)
        self._call("on_train_epoch_end")

    def epoch_end(self, row: Row) -> None:
        """After an epoch has been validated and saved."""
        state, run = self.state, self._run
        state.metrics, state.epochs = dict(row), run.settings.epochs
        state.fitness = row.get("metrics/AP", state.fitness)
        state.best_fitness = run.progress.best
        self._call("on_model_save")
        self._call("on_fit_epoch_end")

    def train_end(self, metrics: dict[str, float]) -> None:
        """After the best weights have been scored."""
        self.state.metrics = dict(metrics)
        self._call("on_train_end")

    def should_stop(self) -> bool:
        """Whether a callback has set `state.stop`. Every process must call it."""
        return run_on_main(lambda: self.state.stop)

    def _call(self, event: str) -> None:
        """Call the listeners of an event between two steps; save the run if one of them raises."""
        if not self.callbacks.has(event):
            return
        with ExitStack() as if_it_raises:
            if_it_raises.callback(self._save, event)
            self.callbacks.call(event, self.state)
            if_it_raises.pop_all()

    def _refuse_thawed(self) -> None:
        """Refuse a callback that unfreezes parameters, as the optimizer would not change them.

        Raises:
            UsageError: a parameter requires a gradient and is not in the optimizer.
        """
        groups = self._run.optimizer.param_groups
        trained = {id(parameter) for group in groups for parameter in group["params"]}
        for name, parameter in self._run.network.named_parameters():
            if parameter.requires_grad and id(parameter) not in trained:
                raise UsageError(
                    f"a callback of on_train_epoch_start unfreezes {name}, which is not in the "
                    "optimizer; train again from best.pt without freeze="
                )

    def _within_step(self, event: str) -> None:
        """Call the listeners of an event inside a step, which is lost if one of them raises."""
        self.callbacks.call(event, self.state)

    def _save(self, event: str) -> None:
        run = self._run
        save_last(run.run_dir / "weights", run_checkpoint(run))
        say(f"a callback of {event} raised; `rtdetr train resume={run.run_dir}` continues")
