"""The training loop: epochs, batches, steps, validation, checkpoints.

One step, with forward, loss, backward, optimizer and EMA, is in training/step.py; what exists
before the first step is built in training/prepare.py.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rtdetr_cli.backends.torch import TorchDetector, torch_detector
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.callbacks import TRAIN_EVENTS, VAL_EVENTS, Callbacks
from rtdetr_cli.core.console import progress, result_json, say
from rtdetr_cli.core.distributed import (
    broadcast,
    is_main_process,
    main_process_only,
    process_group,
)
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.core.structures import Batch
from rtdetr_cli.data.workers import explain_lost_worker, leave_if_importing_main
from rtdetr_cli.engine.predicting.augmentation import detect_in_variants
from rtdetr_cli.engine.session.remember import with_remembered
from rtdetr_cli.engine.training.early_stopping import Stopper
from rtdetr_cli.engine.training.epoch_table import EpochTable
from rtdetr_cli.engine.training.events import TrainEvents, TrainState
from rtdetr_cli.engine.training.failures import explain_failed_step
from rtdetr_cli.engine.training.label_statistics import plot_labels
from rtdetr_cli.engine.training.last_epochs import enter_epoch, restart_if_due
from rtdetr_cli.engine.training.launch import devices_to_launch, launch, leave_outcome
from rtdetr_cli.engine.training.live_status import LiveStatus
from rtdetr_cli.engine.training.optim import train_mode
from rtdetr_cli.engine.training.prepare import plan_epochs, prepare
from rtdetr_cli.engine.training.resume import run_checkpoint, save_last, weights_checkpoint
from rtdetr_cli.engine.training.run import EpochSums, Run, StepTimer
from rtdetr_cli.engine.training.run_curves import plot_curves
from rtdetr_cli.engine.training.run_log import Row, RunLog, validation_columns
from rtdetr_cli.engine.training.run_pictures import draw_batch, draw_validation
from rtdetr_cli.engine.training.signals import StopRequest
from rtdetr_cli.engine.training.step import in_groups, num_groups, train_step
from rtdetr_cli.engine.training.summary import describe_end
from rtdetr_cli.engine.training.ultralytics_columns import ultralytics_rows
from rtdetr_cli.engine.training.validation import ValidationDetector
from rtdetr_cli.engine.val import draw_curves, evaluate, print_metrics
from rtdetr_cli.evaluation.metrics import Metrics
from rtdetr_cli.loss.criterion import Criterion, LossConfig
from rtdetr_cli.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


@dataclass(frozen=True)
class TrainResult:
    """The result of a training.

    Attributes:
        run_dir: the run folder; the best weights are `weights/best.pt` in it.
        metrics: of the best weights on the validation split; None with val=false.
        state: what callbacks received, at its end.
    """

    run_dir: Path
    metrics: Metrics | None
    state: TrainState


def train(settings: TrainSettings, callbacks: Callbacks | None = None) -> TrainResult:
    """Train a detector, from scratch or from weights.

    With several devices, starts a worker for each; the workers call this function again.

    Args:
        settings: every key of `rtdetr train`.
        callbacks: functions called at the events of the training and of its validations.

    Raises:
        UsageError: a key or an architecture is wrong.
        DataError: the data set cannot be used.
        WeightsError: the initial weights cannot be used.
        BackendError: the device is missing, the gradient is not finite, the disk is full.
    """
    leave_if_importing_main()
    settings = with_remembered(settings)
    devices = devices_to_launch(settings)
    if devices:
        if callbacks and callbacks.has(*TRAIN_EVENTS, *VAL_EVENTS):
            raise UsageError(
                f"train: callbacks do not reach the workers of device={settings.device}; start "
                "the script with torchrun"
            )
        launched = launch(settings, devices)
        assert isinstance(launched, TrainResult)
        return launched
    with process_group():
        events = TrainEvents(settings, callbacks or Callbacks())
        run = prepare(settings)
        with run.held:
            if run.progress.step == 0:
                _begin(run)
            with events.follow(run):
                with _save_when_stopped(run):
                    fit(run, events)
                result = TrainResult(run.run_dir, _score_best(run, events), events.state)
                events.train_end(result.metrics.stats if result.metrics else {})
        leave_outcome(result)
    return result


def fit(run: Run, events: TrainEvents) -> None:
    """Train epoch by epoch from the run's position: steps, validation, log, checkpoint.

    Raises:
        StopRequest: a signal asked to stop; the run is between two steps.
    """
    recipe = run.recipe
    criterion = Criterion(config=LossConfig(recipe.loss, refinement=recipe.refinement))
    log, stopper = _open_log(run), Stopper(run.settings, run.progress)
    table = EpochTable()
    while run.progress.epoch < run.settings.epochs:
        if reason := stopper.reason(log.rows):
            say(reason)
            return
        enter_epoch(run, criterion)
        events.epoch_start()
        row = train_epoch(run, criterion, events)
        events.steps_end(row)
        with run.stop.at_once():  # validation changes nothing that is saved
            metrics, columns = validate(run, criterion, events, stopper.time_is_over())
        row |= columns
        if not run.progress.is_planned:
            plan_epochs(run, stopper.epochs_that_fit(run.progress.epoch + 1))
        log.append(row)
        table.show(row, run.settings)
        _end_epoch(run, metrics)
        events.epoch_end(row)
        if events.should_stop():
            say("a callback ends the run here")
            return
        run.stop.check()


@explain_lost_worker()
def train_epoch(run: Run, criterion: Criterion, events: TrainEvents) -> Row:
    """Train on the remaining steps of the epoch.

    Returns:
        The row of results.csv: mean losses, learning rate, seconds, the share of them spent
        waiting for data, and skipped steps if any.
    """
    train_mode(run.network, run.recipe)
    timer, sums = StepTimer(run.progress.sums), run.progress.sums
    for batches in _epoch_steps(run, timer):
        _draw_first_batches(run, batches)
        events.batch_start(batches)
        with explain_failed_step(run, batches):
            losses = train_step(run, criterion, *batches)  # forward, loss, backward, step, EMA
        sums.add(losses)
        timer.end_step()
        events.batch_end(losses)
        run.stop.check()
        if run.progress.step % run.settings.save_steps == 0:
            _save_last(run)
    run.pace.steps_end()
    row = {"epoch": run.progress.epoch + 1, "time": sums.seconds, **sums.means()}
    if sums.skipped:
        row["train/skipped"] = sums.skipped
    lr = run.optimizer.param_groups[-1]["lr"]
    return row | {"lr": lr, "data_wait": sums.waited / sums.seconds}


def _epoch_steps(run: Run, timer: StepTimer) -> Iterator[list[Batch]]:
    """The batches of each remaining step of the epoch, `accumulate` at a time."""
    epoch, settings = run.progress.epoch, run.settings
    loader, accumulate, done = run.data.train_batches, settings.accumulate, run.progress.sums.steps
    loader.set_epoch(epoch, strong=epoch < settings.epochs - run.recipe.clean_epochs)
    steps = in_groups(loader.batches(done * accumulate), accumulate)
    total, status = num_groups(len(loader), accumulate), LiveStatus(run)
    label = f"epoch {epoch + 1}/{settings.epochs}"
    yield from progress(status.watch(timer.wait_for(steps)), total, label, status, done)


def validate(
    run: Run, criterion: Criterion, events: TrainEvents, is_late: bool
) -> tuple[Metrics | None, Row]:
    """Score the averaged weights, every `val_every` epochs and after the last one.

    Returns:
        The metrics and their columns of results.csv, with the losses; None and no columns in
        other epochs, and with val=false.
    """
    epoch = run.progress.epoch + 1
    is_last = is_late or epoch == run.settings.epochs
    data, is_due = run.data, is_last or epoch % run.settings.val_every == 0
    if not is_due or data.val is None or data.val_batches is None:
        return None, {}
    broadcast(run.ema.network.buffers())  # BatchNorms on CPUs are not synchronised
    detector = ValidationDetector(run, criterion)
    callbacks = detector.adding_losses(events.callbacks)
    metrics = evaluate(detector, data.val, data.val_batches, callbacks)
    return metrics, validation_columns(metrics) | detector.mean_losses()


def _open_log(run: Run) -> RunLog:
    columns = partial(ultralytics_rows, groups=run.optimizer.param_groups)
    return RunLog(run.run_dir, run.progress.rows, columns if run.settings.ultralytics_csv else None)


def _end_epoch(run: Run, metrics: Metrics | None) -> None:
    """Advance to the next epoch and save: best.pt, then last.pt, perhaps restarted from best.pt.

    Without validation the last weights count as the best.
    """
    state = run.progress
    state.epoch += 1
    state.sums = EpochSums()
    is_best = not run.settings.val
    if metrics is not None and metrics.stats["AP"] > state.best:
        is_best, state.best = True, metrics.stats["AP"]
    _save_weights(run, is_best)
    restart_if_due(run)
    _save_last(run)
    run.pace.epoch_ends(is_validated=metrics is not None)


@main_process_only
def _begin(run: Run) -> None:
    save_last(run.run_dir / "weights", run_checkpoint(run))  # finds a full disk at once
    if run.settings.plots:
        plot_labels(run.run_dir / "labels.jpg", run.data.train)


@main_process_only
def _save_weights(run: Run, is_best: bool) -> None:
    epoch, weights_dir = run.progress.epoch, run.run_dir / "weights"
    if is_best:
        save_checkpoint(weights_dir / "best.pt", weights_checkpoint(run))
    period = run.settings.save_period
    if period and epoch % period == 0:
        save_checkpoint(weights_dir / f"epoch{epoch}.pt", weights_checkpoint(run))


@main_process_only
def _save_last(run: Run) -> None:
    save_last(run.run_dir / "weights", run_checkpoint(run))


def _draw_first_batches(run: Run, batches: list[Batch]) -> None:
    step = run.progress.step
    if run.settings.plots and is_main_process() and step < 3:
        draw_batch(run.run_dir / f"train_batch{step}.jpg", batches[0], run.data.train.names)


@contextmanager
def _save_when_stopped(run: Run) -> Iterator[None]:
    """Save and exit after a signal: 130 after SIGINT, 143 after SIGTERM, 129 after SIGHUP."""
    with run.stop:
        try:
            yield
        except StopRequest:
            _save_last(run)
            say(
                f"stopped in epoch {run.progress.epoch + 1} after step {run.progress.step} and "
                f"saved; `rtdetr train resume={run.run_dir}` continues"
            )
            if run.stop.number in {None, signal.SIGINT}:
                raise KeyboardInterrupt from None
            raise SystemExit(128 + run.stop.number) from None


def _score_best(run: Run, events: TrainEvents) -> Metrics | None:
    """Score the best weights once more and report; without validation there is no score."""
    detector, data, metrics = torch_detector(_load_best(run), str(run.device)), run.data, None
    if data.val is not None and data.val_batches is not None:
        metrics = evaluate(detector, data.val, data.val_batches, events.callbacks)
    _report(run, detector, metrics)
    return metrics


@main_process_only
def _load_best(run: Run) -> Checkpoint:
    best = run.run_dir / "weights" / "best.pt"
    if not best.is_file():  # a callback ended the run before its first validation
        save_checkpoint(best, weights_checkpoint(run))
    return load_checkpoint(best)


@main_process_only
def _report(run: Run, detector: TorchDetector, metrics: Metrics | None) -> None:
    """Draw the plots, then print the metrics, which may fail, and the end of the log."""
    if metrics is not None:
        metrics.save_dir = run.run_dir
    if run.settings.plots:
        plot_curves(run.run_dir / "results.png", run.progress.rows)
        if metrics is not None and run.data.val_batches is not None:
            draw_curves(run.run_dir, metrics)
            detect = partial(detect_in_variants, detector)
            draw_validation(run.run_dir, run.data.val_batches, detector.names, detect)
    if metrics is not None and run.settings.json:
        result_json(json.dumps(metrics.to_dict()))
    elif metrics is not None:
        print_metrics(metrics)
    say(*describe_end(run, metrics))
