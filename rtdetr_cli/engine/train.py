"""THE LOOP: trains a detector and leaves a run folder behind."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rtdetr_cli.backends.torch import TorchDetector, torch_detector
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.console import progress, result_json, say
from rtdetr_cli.core.distributed import broadcast, is_main_process, process_group, run_on_main
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.core.structures import Batch
from rtdetr_cli.data.loader import explain_lost_worker
from rtdetr_cli.engine.training.callbacks import Callbacks, TrainState
from rtdetr_cli.engine.training.compiled import explain_failed_compile
from rtdetr_cli.engine.training.early_stopping import Stopper
from rtdetr_cli.engine.training.failures import explain_out_of_memory
from rtdetr_cli.engine.training.launch import devices_to_launch, launch, leave_outcome
from rtdetr_cli.engine.training.loggers import Loggers
from rtdetr_cli.engine.training.optim import train_mode
from rtdetr_cli.engine.training.prepare import plan_epochs, prepare
from rtdetr_cli.engine.training.resume import run_checkpoint, save_last, weights_checkpoint
from rtdetr_cli.engine.training.run import EpochSums, Run
from rtdetr_cli.engine.training.run_log import Row, RunLog, primitives
from rtdetr_cli.engine.training.run_pictures import draw_batch, draw_labels, draw_validation
from rtdetr_cli.engine.training.signals import StopRequest
from rtdetr_cli.engine.training.step import in_groups, num_groups, train_step
from rtdetr_cli.engine.val import draw_curves, evaluate, print_metrics
from rtdetr_cli.evaluation.metrics import Metrics
from rtdetr_cli.loss.criterion import Criterion, LossConfig
from rtdetr_cli.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves.

    Attributes:
        run_dir: the run's folder; the best weights are `weights/best.pt` in it.
        metrics: of the best weights on the validation split.
    """

    run_dir: Path
    metrics: Metrics


def train(settings: TrainSettings, callbacks: Callbacks | None = None) -> TrainResult:
    """Train a detector, from scratch or from weights.

    With several devices a worker is started for each, which does the same.

    Args:
        settings: every key of `rtdetr train`.
        callbacks: who is told of start, epochs and end.

    Raises:
        UsageError: a key or an architecture is wrong.
        DataError: the data set cannot be used.
        WeightsError: the starting weights cannot be used.
        BackendError: the device is missing, the loss is not finite, the disk is full.
    """
    devices = devices_to_launch(settings)
    if not devices:
        with process_group():
            outcome = _train(settings, callbacks or Callbacks())
            leave_outcome(outcome)
        return outcome
    if callbacks:
        raise UsageError(
            f"train: callbacks do not reach the workers of device={settings.device}; start the "
            "script with torchrun"
        )
    launched = launch(settings, devices)
    assert isinstance(launched, TrainResult)
    return launched


def _train(settings: TrainSettings, callbacks: Callbacks) -> TrainResult:
    """Train as one process, or as one of the workers: all do the same, the main one writes."""
    run = prepare(settings)
    with run.held:
        return _go(run, callbacks)


def _go(run: Run, callbacks: Callbacks) -> TrainResult:
    log = RunLog(run.run_dir, run.progress.rows)
    if run.progress.step == 0:
        run_on_main(lambda: _begin(run))
    listeners = callbacks.copy() if is_main_process() else Callbacks()
    state = TrainState(run.settings, run.run_dir, run.progress.epoch, run.settings.epochs)
    with _logging(run, listeners):
        listeners.call("on_train_start", state)
        with run.stop:
            try:
                _train_epochs(run, log, listeners, state)
            except StopRequest:
                _leave(run)
        outcome = _finish(run, log)
        state.metrics = dict(outcome.metrics.stats)
        listeners.call("on_train_end", state)
    return outcome


@contextmanager
def _logging(run: Run, listeners: Callbacks) -> Iterator[None]:
    """Tell those of `logger=` what the other listeners are told, and when the run is over."""
    loggers = Loggers(run.settings.logger or () if is_main_process() else ())
    settings, is_resumed = primitives(run.settings), run.progress.step > 0
    run_on_main(lambda: loggers.start(run.run_dir, settings, is_resumed))
    listeners.add("on_fit_epoch_end", lambda state: loggers.epoch(state.epoch + 1, state.metrics))
    listeners.add("on_train_end", lambda state: loggers.finish(state.metrics, run.run_dir))
    try:
        yield
    finally:
        loggers.stop()


def _begin(run: Run) -> None:
    save_last(run.run_dir / "weights", run_checkpoint(run))  # a full disk is found at once
    if run.settings.plots:
        draw_labels(run.run_dir, run.data.train)


def _train_epochs(run: Run, log: RunLog, listeners: Callbacks, state: TrainState) -> None:
    criterion = Criterion(config=LossConfig(run.recipe.loss))
    stopper = Stopper(run.settings, run.progress)
    while (epoch := run.progress.epoch) < run.settings.epochs:
        if reason := run_on_main(lambda: stopper.reason(log.rows)):
            say(reason)
            return
        row = train_epoch(run, criterion, epoch)
        with run.stop.at_once():
            metrics = _validate(run, epoch, run_on_main(stopper.time_is_over))
        if metrics is not None:
            row |= {f"metrics/{name}": value for name, value in metrics.stats.items()}
        if not run.progress.is_planned:
            plan_epochs(run, run_on_main(lambda: stopper.epochs_that_fit(run.progress.epoch + 1)))
        _end_epoch(run, log, row, metrics)
        state.epoch, state.epochs, state.metrics = epoch, run.settings.epochs, dict(row)
        listeners.call("on_fit_epoch_end", state)
        if run_on_main(lambda: state.stop):
            say("a callback ends the run here")
            return
        run.stop.check()


@explain_lost_worker()
def train_epoch(run: Run, criterion: Criterion, epoch: int) -> Row:
    """One pass over the training images, from the step on that the run stands at.

    Returns:
        Mean losses of the last decoder layer, the mean of their whole sum, learning rates, seconds,
        the share of them spent waiting for data, and steps that were skipped if there were any.
    """
    strong = epoch < run.settings.epochs - run.recipe.clean_epochs
    loader, sums, accumulate = run.data.train_batches, run.progress.sums, run.settings.accumulate
    loader.set_epoch(epoch, strong)
    draws = run.settings.plots and is_main_process()
    train_mode(run.network, run.recipe)
    groups = _timed(in_groups(loader.batches(sums.steps * accumulate), accumulate))
    steps_left = num_groups(len(loader), accumulate) - sums.steps
    mark = time.perf_counter()
    for batches, waited in progress(groups, steps_left, f"epoch {epoch + 1}/{run.settings.epochs}"):
        if draws and run.progress.step < 3:
            picture = run.run_dir / f"train_batch{run.progress.step}.jpg"
            draw_batch(picture, batches[0], run.data.train.names)
        with explain_out_of_memory(batches, run.settings), explain_failed_compile():
            sums.add(train_step(run, criterion, *batches))
        sums.waited += waited
        sums.seconds, mark = sums.seconds + time.perf_counter() - mark, time.perf_counter()
        run.stop.check()
        if run.progress.step % run.settings.save_steps == 0:
            run_on_main(lambda: save_last(run.run_dir / "weights", run_checkpoint(run)))
    row = {"epoch": epoch + 1, "time": sums.seconds, **sums.means()}
    if sums.skipped:
        row["train/skipped"] = sums.skipped
    lr = run.optimizer.param_groups[-1]["lr"]
    return row | {"lr": lr, "data_wait": sums.waited / sums.seconds}


def _timed(groups: Iterator[list[Batch]]) -> Iterator[tuple[list[Batch], float]]:
    """The batches of each step with the seconds that they were waited for."""
    while True:
        start = time.perf_counter()
        batches = next(groups, None)
        if batches is None:
            return
        yield batches, time.perf_counter() - start


def _validate(run: Run, epoch: int, is_late: bool) -> Metrics | None:
    """Score the averaged weights, every `val_every` epochs and after the last."""
    is_last = is_late or epoch + 1 == run.settings.epochs
    if not is_last and (epoch + 1) % run.settings.val_every:
        return None
    broadcast(run.ema.network.buffers())  # norms that are not synchronised
    detector = TorchDetector(run.ema.network, run.data.val.names, run.preprocessing, run.device)
    return evaluate(detector, run.data.val, run.data.val_batches)


def _end_epoch(run: Run, log: RunLog, row: Row, metrics: Metrics | None) -> None:
    """Log and say the epoch, move on to the next, save."""
    progress = run.progress
    run_on_main(lambda: log.append(row))
    _say_epoch(row, run.settings.epochs)
    progress.epoch += 1
    progress.rows, progress.sums = log.rows, EpochSums()
    is_best = metrics is not None and metrics.stats["AP"] > progress.best
    if metrics is not None and is_best:
        progress.best = metrics.stats["AP"]
    run_on_main(lambda: _save(run, is_best))


def _save(run: Run, is_best: bool) -> None:
    """best.pt where the AP is the best so far, then last.pt with all that resuming needs."""
    progress, weights_dir = run.progress, run.run_dir / "weights"
    if is_best:
        save_checkpoint(weights_dir / "best.pt", weights_checkpoint(run))
    period = run.settings.save_period
    if period and progress.epoch % period == 0:
        save_checkpoint(weights_dir / f"epoch{progress.epoch}.pt", weights_checkpoint(run))
    save_last(weights_dir, run_checkpoint(run))


def _leave(run: Run) -> NoReturn:
    """Save and end as the signal says: 130 after SIGINT, 143 after SIGTERM, 129 after SIGHUP."""
    run_on_main(lambda: save_last(run.run_dir / "weights", run_checkpoint(run)))
    say(
        f"stopped in epoch {run.progress.epoch + 1} after step {run.progress.step} and saved; "
        f"`rtdetr train resume={run.run_dir}` goes on"
    )
    if run.stop.number in {None, signal.SIGINT}:
        raise KeyboardInterrupt
    raise SystemExit(128 + run.stop.number)


def _say_epoch(row: Row, epochs: int) -> None:
    known = {name: row[name] for name in row if name.startswith("train/loss")}
    losses = "".join(
        f"{name.removeprefix('train/').removeprefix('loss_')} {known[name]:.3f}  " for name in known
    )
    if "train/skipped" in row:
        losses += f"{row['train/skipped']:.0f} steps not finite and skipped  "
    found = ""
    if "metrics/AP" in row:
        found = f"  AP {row['metrics/AP']:.4f}  AP50 {row['metrics/AP50']:.4f}"
    say(
        f"epoch {row['epoch']:.0f}/{epochs}  {losses}lr {row['lr']:.2e}{found}  "
        f"{row['time']:.0f} s, {100 * row['data_wait']:.0f} % waiting for data"
    )


def _finish(run: Run, log: RunLog) -> TrainResult:
    """Score the best weights once more and report."""
    detector = torch_detector(run_on_main(lambda: _best(run)), str(run.device))
    metrics = evaluate(detector, run.data.val, run.data.val_batches)
    run_on_main(lambda: _report(run, log, detector, metrics))
    return TrainResult(run.run_dir, metrics)


def _best(run: Run) -> Checkpoint:
    best = run.run_dir / "weights" / "best.pt"
    if not best.is_file():  # a callback ended the run before its first validation
        save_checkpoint(best, weights_checkpoint(run))
    return load_checkpoint(best)


def _report(run: Run, log: RunLog, detector: TorchDetector, metrics: Metrics) -> None:
    """Draw the curves, then print the metrics, which may fail, and say where everything is."""
    if run.settings.plots:
        log.plot()
        draw_curves(run.run_dir, metrics)
        draw_validation(run.run_dir, run.data.val_batches, detector)
    if run.settings.json:
        result_json(json.dumps(metrics.to_dict()))
    else:
        print_metrics(metrics)
    best = run.run_dir / "weights" / "best.pt"
    say(f"saved to {run.run_dir}; try `rtdetr predict model={best} source=your.jpg`")
