"""THE LOOP: trains a detector and leaves a run folder behind."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rtdetr_cli.backends.torch import TorchDetector, torch_detector
from rtdetr_cli.config.settings import TrainSettings
from rtdetr_cli.core.console import progress, result, say
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.core.structures import Batch
from rtdetr_cli.engine.accumulate import box_shares, in_groups, num_groups
from rtdetr_cli.engine.callbacks import Callbacks, TrainState, add_tensorboard
from rtdetr_cli.engine.memory import explain_out_of_memory
from rtdetr_cli.engine.optim import set_learning_rate, train_mode
from rtdetr_cli.engine.prepare import Run, prepare
from rtdetr_cli.engine.run_log import Row, RunLog
from rtdetr_cli.engine.run_pictures import draw_batch, draw_labels, draw_validation
from rtdetr_cli.engine.snapshot import training_state
from rtdetr_cli.engine.stopping import Stopper
from rtdetr_cli.engine.val import draw_curves, evaluate, print_metrics
from rtdetr_cli.evaluation.metrics import Metrics
from rtdetr_cli.loss.criterion import Criterion
from rtdetr_cli.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

TERMS = ("loss_vfl", "loss_bbox", "loss_giou")


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

    Args:
        settings: every key of `rtdetr train`.
        callbacks: who is told of start, epochs and end.

    Raises:
        UsageError: a key or an architecture is wrong.
        DataError: the data set cannot be used.
        WeightsError: the starting weights cannot be used.
        BackendError: the device is missing, the loss is not finite, the disk is full.
    """
    run = prepare(settings)
    log = RunLog(run.run_dir, run.progress.rows)
    if run.settings.plots and not run.progress.epoch:
        draw_labels(run.run_dir, run.data.train)
    criterion = Criterion()
    stopper = Stopper(run.settings, log.rows)
    listeners, state = _listeners(run, callbacks)
    listeners.call("on_train_start", state)
    for epoch in range(run.progress.epoch, run.settings.epochs):
        if reason := stopper.reason(log.rows):
            say(reason)
            break
        row = train_epoch(run, criterion, epoch)
        metrics = _validate(run, epoch, stopper.time_is_over())
        if metrics is not None:
            row |= {f"metrics/{name}": value for name, value in metrics.stats.items()}
        log.append(row)
        _say_epoch(row, run.settings.epochs)
        _save(run, log, metrics)
        state.epoch, state.metrics = epoch, dict(row)
        listeners.call("on_fit_epoch_end", state)
        if state.stop:
            say("a callback ends the run here")
            break
    outcome = _finish(run, log)
    state.metrics = dict(outcome.metrics.stats)
    listeners.call("on_train_end", state)
    return outcome


def _listeners(run: Run, callbacks: Callbacks | None) -> tuple[Callbacks, TrainState]:
    """Who is told of this run, and what they get."""
    listeners = callbacks.copy() if callbacks else Callbacks()
    if run.settings.tensorboard:
        add_tensorboard(listeners, run.run_dir)
    return listeners, TrainState(run.settings, run.run_dir, run.progress.epoch, run.settings.epochs)


def train_epoch(run: Run, criterion: Criterion, epoch: int) -> Row:
    """One pass over the training images.

    Returns:
        Mean losses of the last decoder layer, the mean of their whole sum, learning rates, seconds
        and the share of them spent waiting for data.
    """
    start = time.perf_counter()
    strong = epoch < run.settings.epochs - run.recipe.clean_epochs
    run.data.train_batches.set_epoch(epoch, strong)
    train_mode(run.network, run.recipe)
    sums: dict[str, Tensor] = {}
    waited = 0.0
    accumulate = run.settings.accumulate
    groups = in_groups(run.data.train_batches.batches(), accumulate)
    steps = num_groups(len(run.data.train_batches), accumulate)
    label = f"epoch {epoch + 1}/{run.settings.epochs}"
    for batches, seconds in progress(_timed(groups), steps, label):
        waited += seconds
        if run.settings.plots and run.progress.step < 3:
            picture = run.run_dir / f"train_batch{run.progress.step}.jpg"
            draw_batch(picture, batches[0], run.data.train.names)
        with explain_out_of_memory(batches, run.settings):
            losses = train_step(run, criterion, *batches)
        for name, value in losses.items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value
    elapsed = time.perf_counter() - start
    return {
        "epoch": epoch + 1,
        "time": elapsed,
        **{f"train/{name}": total.item() / steps for name, total in sums.items()},
        "lr": run.optimizer.param_groups[-1]["lr"],
        "data_wait": waited / elapsed,
    }


def train_step(run: Run, criterion: Criterion, *batches: Batch) -> dict[str, Tensor]:
    """Forward, loss and backward of one or more batches, one step of optimizer and average.

    Returns:
        The loss and the three terms of the last decoder layer, detached.

    Raises:
        BackendError: the loss is not finite.
    """
    set_learning_rate(run.optimizer, run.recipe, run.progress.step)
    run.optimizer.zero_grad()
    losses = _backward(run, criterion, batches)
    norm = nn.utils.clip_grad_norm_(
        run.network.parameters(), run.recipe.clip_norm or math.inf, foreach=True
    )
    if not torch.isfinite(norm):
        raise BackendError(
            f"the loss is {losses['loss'].item()} and its gradient's norm {norm.item()} at step "
            f"{run.progress.step}; lower lr, or look at the pictures "
            f"{', '.join(batches[0].paths[:3])}"
        )
    run.optimizer.step()
    run.ema.update()
    run.progress.step += 1
    return losses


def _backward(run: Run, criterion: Criterion, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """Gradients of the mean loss per box of all batches together; the losses, detached."""
    sums: dict[str, Tensor] = {}
    shares = box_shares(batches, run.device).unbind()
    for batch, share in zip((batch.to(run.device) for batch in batches), shares, strict=True):
        images = batch.images.contiguous(memory_format=torch.channels_last)
        output = run.network(images, batch.targets)
        terms = criterion(output, batch.targets)
        loss = share * torch.stack(list(terms.values())).sum()
        loss.backward()
        losses = {"loss": loss.detach(), **{n: share * terms[n].detach() for n in TERMS}}
        sums = {name: sums.get(name, 0) + value for name, value in losses.items()}
    return sums


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
    detector = TorchDetector(run.ema.network, run.data.val.names, run.preprocessing, run.device)
    return evaluate(detector, run.data.val, run.data.val_batches)


def _save(run: Run, log: RunLog, metrics: Metrics | None) -> None:
    """best.pt where the AP is the best so far, then last.pt with all that resuming needs."""
    run.progress.epoch += 1
    run.progress.rows = log.rows
    weights_dir = run.run_dir / "weights"
    if metrics is not None and metrics.stats["AP"] > run.progress.best:
        run.progress.best = metrics.stats["AP"]
        save_checkpoint(weights_dir / "best.pt", _checkpoint(run))
    period = run.settings.save_period
    if period and run.progress.epoch % period == 0:
        save_checkpoint(weights_dir / f"epoch{run.progress.epoch}.pt", _checkpoint(run))
    last = _checkpoint(run)
    last.training = training_state(run.settings, run.progress, run.network, run.ema, run.optimizer)
    save_checkpoint(weights_dir / "last.pt", last)


def _checkpoint(run: Run) -> Checkpoint:
    network = run.ema.network
    return Checkpoint(
        config=network.config,
        names=run.data.train.names,
        weights=network.state_dict(),
        preprocessing=run.preprocessing,
        origin=f"rtdetr train, epoch {run.progress.epoch}",
    )


def _say_epoch(row: Row, epochs: int) -> None:
    losses = f"loss {row['train/loss']:.3f}"
    losses += "".join(f"  {name[5:]} {row[f'train/{name}']:.3f}" for name in TERMS)
    found = ""
    if "metrics/AP" in row:
        found = f"  AP {row['metrics/AP']:.4f}  AP50 {row['metrics/AP50']:.4f}"
    say(
        f"epoch {row['epoch']:.0f}/{epochs}  {losses}  lr {row['lr']:.2e}{found}  "
        f"{row['time']:.0f} s, {100 * row['data_wait']:.0f} % waiting for data"
    )


def _finish(run: Run, log: RunLog) -> TrainResult:
    """Score the best weights once more, draw the curves, say where everything is."""
    best = run.run_dir / "weights" / "best.pt"
    if not best.is_file():  # a callback ended the run before its first validation
        save_checkpoint(best, _checkpoint(run))
    detector = torch_detector(load_checkpoint(best), str(run.device))
    metrics = evaluate(detector, run.data.val, run.data.val_batches)
    if run.settings.json:
        result(json.dumps(metrics.to_dict()))
    else:
        print_metrics(metrics)
    if run.settings.plots:
        log.plot()
        draw_curves(run.run_dir, metrics)
        draw_validation(run.run_dir, run.data.val_batches, detector)
    say(f"saved to {run.run_dir}; try `rtdetr predict model={best} source=your.jpg`")
    return TrainResult(run.run_dir, metrics)
