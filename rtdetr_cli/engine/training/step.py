"""ONE STEP: forward, loss and backward of its batches, optimizer, moving average.

A step follows from the state before it, its batches and (seed, step, rank); nothing else is drawn
from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from rtdetr_cli.core.distributed import all_reduce_mean, loss_normalizer
from rtdetr_cli.core.structures import Batch
from rtdetr_cli.engine.training.failures import crash
from rtdetr_cli.engine.training.optim import set_learning_rate
from rtdetr_cli.engine.training.precision import Precision
from rtdetr_cli.engine.training.resume import seed_step
from rtdetr_cli.engine.training.run import MAX_SKIPPED, Run
from rtdetr_cli.loss.criterion import Criterion


def train_step(run: Run, criterion: Criterion, *batches: Batch) -> dict[str, Tensor] | None:
    """Forward, loss and backward of one or more batches, one step of optimizer and average.

    A step whose gradient is not finite changes nothing but the count of steps.

    Returns:
        The loss and the three terms of the last decoder layer, detached; None if it was skipped.

    Raises:
        BackendError: three steps in a row were not finite.
    """
    seed_step(run.settings.seed, run.progress.step)
    set_learning_rate(run.optimizer, run.recipe, run.progress.step)
    run.optimizer.zero_grad()
    run.keep_statistics()
    losses = _backward(run, criterion, batches)
    scaler = run.precision.scaler
    scaler.unscale_(run.optimizer)
    norm = nn.utils.clip_grad_norm_(
        run.network.parameters(), run.recipe.clip_norm or math.inf, foreach=True
    ).item()
    is_finite = math.isfinite(norm)
    if is_finite:
        scaler.step(run.optimizer)
        run.ema.update()
        run.progress.skipped = 0
    else:
        run.undo_statistics()
        if not run.precision.can_skip(losses["loss"]):
            if run.progress.skipped + 1 == MAX_SKIPPED:
                crash(run, batches, losses, norm)
            run.progress.skipped += 1
    scaler.update()
    run.progress.step += 1
    return losses if is_finite else None


def loss_terms(
    network: nn.Module, criterion: Criterion, precision: Precision, batch: Batch
) -> dict[str, Tensor]:
    """Forward pass and criterion of one batch, which lies on the network's device."""
    images = batch.images.contiguous(memory_format=torch.channels_last)
    with precision.autocast():
        output = network(images, batch.targets)
    terms: dict[str, Tensor] = criterion(output, batch.targets)
    return terms


def _backward(run: Run, criterion: Criterion, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """Gradients of the mean loss per box of all batches of all processes; the losses, detached."""
    sums: dict[str, Tensor] = {}
    shares = box_shares(batches, run.device).unbind()
    for number, (batch, share) in enumerate(zip(batches, shares, strict=True), start=1):
        with run.sharing(is_last=number == len(batches)):
            terms = loss_terms(run.replica, criterion, run.precision, batch.to(run.device))
            loss = share * torch.stack(list(terms.values())).sum()
            run.precision.scaler.scale(loss).backward()
        losses = {"loss": loss.detach(), **{n: share * terms[n].detach() for n in criterion.names}}
        sums = {name: sums.get(name, 0) + value for name, value in losses.items()}
    return dict(zip(sums, all_reduce_mean(torch.stack(list(sums.values()))).unbind(), strict=True))


def in_groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """The batches of each step; the last step of an epoch may have fewer."""
    left = iter(batches)
    while group := list(islice(left, size)):
        yield group


def num_groups(num_batches: int, size: int) -> int:
    """Steps in an epoch of so many batches."""
    return -(-num_batches // size)


def box_shares(batches: Sequence[Batch], device: torch.device) -> Tensor:
    """The weight of each batch's loss, (len(batches),): its share of the boxes of the step.

    Counts are what the criterion divides by (core/distributed.py, loss_normalizer).
    """
    if len(batches) == 1:
        return torch.ones(1, device=device)
    counts = [sum(len(target.labels) for target in batch.targets) for batch in batches]
    divisors = loss_normalizer(
        torch.tensor([*counts, sum(counts)], dtype=torch.float32, device=device)
    )
    return divisors[:-1] / divisors[-1]
