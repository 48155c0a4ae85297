"""THE LOOP: trains a detector and leaves a run folder behind."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor, nn

from rtdetr_cli.backends.torch import TorchDetector, torch_detector
from rtdetr_cli.config.settings import TrainSettings
from rtdetr_cli.core.console import progress, result, say
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.core.structures import Batch
from rtdetr_cli.engine.last import save_last
from rtdetr_cli.engine.optim import set_learning_rate, train_mode
from rtdetr_cli.engine.prepare import Run, prepare
from rtdetr_cli.engine.run_log import Row, RunLog
from rtdetr_cli.engine.run_pictures import draw_batch, draw_labels, draw_validation
from rtdetr_cli.engine.snapshot import EpochSums, seed_step, training_state
from rtdetr_cli.engine.stop import StopRequest
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


def train(settings: TrainSettings) -> TrainResult:
    """Train a detector, from scratch or from weights.

    Args:
        settings: every key of `rtdetr train`.

    Raises:
        UsageError: a key or an architecture is wrong.
        DataError: the data set cannot be used.
        WeightsError: the starting weights cannot be used.
        BackendError: the device is missing, the loss is not finite, the disk is full.
    """
    run = prepare(settings)
    log = RunLog(run.run_dir, run.progress.rows)
    if run.progress.step == 0:
        _save_last(run)  # a full disk is found before time is spent
        if run.settings.plots:
            draw_labels(run.run_dir, run.data.train)
    with run.stop:
        try:
            _train_epochs(run, log)
        except StopRequest:
            _leave(run)
    return _finish(run, log)


def _train_epochs(run: Run, log: RunLog) -> None:
    criterion = Criterion()
    for epoch in range(run.progress.epoch, run.settings.epochs):
        row = train_epoch(run, criterion, epoch)
        with run.stop.at_once():
            metrics = _validate(run, epoch)
        if metrics is not None:
            row |= {f"metrics/{name}": value for name, value in metrics.stats.items()}
        log.append(row)
        _say_epoch(row, run.settings.epochs)
        _save(run, log, metrics)
        run.stop.check()


def train_epoch(run: Run, criterion: Criterion, epoch: int) -> Row:
    """One pass over the training images.

    Returns:
        Mean losses of the last decoder layer, the mean of their whole sum, learning rates, seconds
        and the share of them spent waiting for data.
    """
    strong = epoch < run.settings.epochs - run.recipe.clean_epochs
    batches, sums = run.data.train_batches, run.progress.sums
    batches.set_epoch(epoch, strong)
    train_mode(run.network, run.recipe)
    label = f"epoch {epoch + 1}/{run.settings.epochs}"
    left = _timed(batches.batches(sums.batches))
    mark = time.perf_counter()
    for batch, waited in progress(left, len(batches) - sums.batches, label):
        if run.settings.plots and run.progress.step < 3:
            picture = run.run_dir / f"train_batch{run.progress.step}.jpg"
            draw_batch(picture, batch, run.data.train.names)
        sums.add(train_step(run, criterion, batch))
        sums.waited += waited
        sums.seconds, mark = sums.seconds + time.perf_counter() - mark, time.perf_counter()
        run.stop.check()
        if run.progress.step % run.settings.save_steps == 0:
            _save_last(run)
    return {
        "epoch": epoch + 1,
        "time": sums.seconds,
        **{f"train/{name}": total.item() / sums.batches for name, total in sums.losses.items()},
        "lr": run.optimizer.param_groups[-1]["lr"],
        "data_wait": sums.waited / sums.seconds,
    }


def train_step(run: Run, criterion: Criterion, batch: Batch) -> dict[str, Tensor]:
    """Forward, loss, backward, one step of optimizer and average.

    Returns:
        The loss and the three terms of the last decoder layer, detached.

    Raises:
        BackendError: the loss is not finite.
    """
    seed_step(run.settings.seed, run.progress.step)
    batch = batch.to(run.device)
    images = batch.images.contiguous(memory_format=torch.channels_last)
    with run.precision.autocast():
        output = run.network(images, batch.targets)
    terms = criterion(output, batch.targets)
    loss = torch.stack(list(terms.values())).sum()
    set_learning_rate(run.optimizer, run.recipe, run.progress.step)
    run.optimizer.zero_grad()
    scaler = run.precision.scaler
    scaler.scale(loss).backward()
    scaler.unscale_(run.optimizer)
    norm = nn.utils.clip_grad_norm_(
        run.network.parameters(), run.recipe.clip_norm or math.inf, foreach=True
    )
    if not torch.isfinite(norm) and not run.precision.can_skip(loss):
        raise BackendError(
            f"the loss is {loss.item()} and its gradient's norm {norm.item()} at step "
            f"{run.progress.step}; lower lr, or look at the pictures {', '.join(batch.paths[:3])}"
        )
    scaler.step(run.optimizer)
    scaler.update()
    run.ema.update()
    run.progress.step += 1
    return {"loss": loss.detach(), **{name: terms[name].detach() for name in TERMS}}


def _timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds that it was waited for."""
    while True:
        start = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - start


def _validate(run: Run, epoch: int) -> Metrics | None:
    """Score the averaged weights, every `val_every` epochs and after the last."""
    is_last = epoch + 1 == run.settings.epochs
    if not is_last and (epoch + 1) % run.settings.val_every:
        return None
    detector = TorchDetector(run.ema.network, run.data.val.names, run.preprocessing, run.device)
    return evaluate(detector, run.data.val, run.data.val_batches)


def _save(run: Run, log: RunLog, metrics: Metrics | None) -> None:
    """best.pt where the AP is the best so far, then last.pt with all that resuming needs."""
    run.progress.epoch += 1
    run.progress.rows = log.rows
    run.progress.sums = EpochSums()
    weights_dir = run.run_dir / "weights"
    if metrics is not None and metrics.stats["AP"] > run.progress.best:
        run.progress.best = metrics.stats["AP"]
        save_checkpoint(weights_dir / "best.pt", _checkpoint(run))
    _save_last(run)


def _save_last(run: Run) -> None:
    """last.pt: the run as it stands between two steps."""
    last = _checkpoint(run)
    last.training = training_state(
        run.settings, run.data.fingerprint, run.progress, run.network, run.ema, run.optimizer
    )
    last.training["scaler"] = run.precision.scaler.state_dict()
    save_last(run.run_dir / "weights", last)


def _leave(run: Run) -> NoReturn:
    """Save and end as the signal says: 130 after SIGINT, 143 after SIGTERM."""
    _save_last(run)
    say(
        f"stopped in epoch {run.progress.epoch + 1} after step {run.progress.step} and saved; "
        f"`rtdetr train resume={run.run_dir}` goes on"
    )
    if run.stop.number == signal.SIGTERM:
        raise SystemExit(128 + signal.SIGTERM)
    raise KeyboardInterrupt


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
