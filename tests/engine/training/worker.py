"""A worker of a distributed training in the tests; prints its results as JSON.

`torchrun worker.py key=value ...`. The network is float64 and its norms are frozen, as they would
see other images in each process; denoising, drawn in each process, is off where losses are
compared.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import torch
from torch import nn

from rtdetr_cli.cli.arguments import parse_arguments
from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.callbacks import Callbacks
from rtdetr_cli.core.console import result_json
from rtdetr_cli.core.distributed import all_gather, process_group, rank, world_size
from rtdetr_cli.core.structures import Target
from rtdetr_cli.engine.training.prepare import prepare
from rtdetr_cli.engine.training.run import Run
from rtdetr_cli.engine.training.signals import StopRequest
from rtdetr_cli.engine.training.step import train_step
from rtdetr_cli.engine.training.validation import ValidationDetector
from rtdetr_cli.engine.val import evaluate
from rtdetr_cli.loss.criterion import Criterion
from rtdetr_cli.nn.denoising import DenoisingConfig

STEPS = 20


def found_by(words: list[str]) -> dict[str, object]:
    """The values that the tests compare."""
    Run.__post_init__ = _in_float64(Run.__post_init__)
    settings = settings_from_pairs(TrainSettings, parse_arguments(TrainSettings, words))
    run = prepare(settings)
    run.network.train()
    for module in run.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    losses = _losses(run)
    return {
        "world_size": world_size(),
        "losses": losses,
        "metrics": _metrics(run),
        "stopped": _stopped(run),
        "without_boxes": _steps_without_boxes(run),
        "seeds": all_gather(torch.initial_seed()),
        "skipped": _spoiled_step(run),
        "weights": all_gather([float(p.detach().sum()) for p in run.network.parameters()]),
    }


def _in_float64(post_init):
    def cast(run: Run) -> None:
        run.network.double()  # before DistributedDataParallel wraps it
        post_init(run)

    return cast


def _batches(run: Run):
    epoch = 0
    while True:
        run.data.train_batches.set_epoch(epoch)
        for batch in run.data.train_batches:
            batch.images = batch.images.double()
            yield batch
        epoch += 1


def _losses(run: Run) -> list[dict[str, float]]:
    criterion, batches = Criterion(), _batches(run)
    return [
        {name: value.item() for name, value in train_step(run, criterion, next(batches)).items()}
        for _ in range(STEPS)
    ]


def _metrics(run: Run) -> dict[str, float]:
    network = run.ema.network.float()
    network.load_state_dict(run.network.state_dict())
    detector = ValidationDetector(run, Criterion())
    callbacks = detector.adding_losses(Callbacks())
    metrics = evaluate(detector, run.data.val, run.data.val_batches, callbacks)
    return metrics.stats | detector.mean_losses()


def _stopped(run: Run) -> list[bool]:
    """A signal to the last process only."""
    run.stop.number = 15 if rank() == world_size() - 1 else None
    try:
        run.stop.check()
    except StopRequest:
        return all_gather(run.stop.number == 15)
    return all_gather(False)


def _steps_without_boxes(run: Run) -> list[float]:
    """Five steps in which the last process has no boxes, with denoising."""
    run.network.decoder.denoising = DenoisingConfig(**asdict(DenoisingConfig()))
    criterion, batches = Criterion(), _batches(run)
    losses = []
    for _ in range(5):
        batch = next(batches)
        if rank() == world_size() - 1:
            batch.targets = [Target(t.boxes_cxcywh[:0], t.labels[:0]) for t in batch.targets]
        losses.append(train_step(run, criterion, batch)["loss"].item())
    return losses


def _spoiled_step(run: Run) -> list[bool]:
    """A step whose images are not finite in the last process."""
    batch = next(_batches(run))
    if rank() == world_size() - 1:
        batch.images[:] = float("nan")
    losses = train_step(run, Criterion(), batch)
    return all_gather(losses is None and run.progress.skipped == 1)


if __name__ == "__main__":
    with process_group():
        result_json(json.dumps(found_by(sys.argv[1:])))
