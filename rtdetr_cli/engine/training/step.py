"""One training step: forward, loss and backward of its batches, optimizer step, EMA update.

The result depends only on the state before the step, its batches and (seed, step, rank).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from rtdetr_cli.core.distributed import all_reduce_mean, loss_normalizer, rank
from rtdetr_cli.core.structures import Batch
from rtdetr_cli.engine.training.optim import set_learning_rate
from rtdetr_cli.engine.training.run import MAX_SKIPPED, StepState
from rtdetr_cli.loss.criterion import Criterion


class NotFiniteError(ArithmeticError):
    """The gradient was not finite in `MAX_SKIPPED` consecutive steps; the last changed nothing."""

    def __init__(self, losses: dict[str, Tensor], gradient_norm: float) -> None:
        super().__init__(f"the gradient norm is {gradient_norm}")
        self.losses, self.gradient_norm = losses, gradient_norm


def train_step(state: StepState, criterion: Criterion, *batches: Batch) -> dict[str, Tensor] | None:
    """Train on one or more batches, whose gradients are accumulated.

    A step whose gradient is not finite is skipped: it changes nothing but the count of steps.

    Returns:
        The loss and the terms that a log shows, detached; None if skipped.

    Raises:
        NotFiniteError: three consecutive steps were not finite.
    """
    seed_step(state.settings.seed, state.progress.step)
    set_learning_rate(state.optimizer, state.recipe, state.progress.step)
    state.notify("on_before_zero_grad")
    state.optimizer.zero_grad()
    state.keep_statistics()
    losses = backward(state, criterion, batches)
    scaler = state.precision.scaler
    scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(
        state.network.parameters(), state.recipe.clip_norm or math.inf, foreach=True
    ).item()
    is_finite = math.isfinite(norm)
    if is_finite:
        state.notify("optimizer_step")
        scaler.step(state.optimizer)
        state.ema.update()
        state.notify("on_params_update")
        state.progress.skipped = 0
    else:
        state.undo_statistics()
        if not state.precision.can_skip(losses["loss"]):
            if state.progress.skipped + 1 == MAX_SKIPPED:
                raise NotFiniteError(losses, norm)
            state.progress.skipped += 1
    scaler.update()
    state.progress.step += 1
    return losses if is_finite else None


def backward(state: StepState, criterion: Criterion, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """Accumulate the gradient of the mean loss per box over all batches of all processes.

    Returns:
        The loss and the terms that a log shows, detached, averaged over processes.
    """
    sums: dict[str, Tensor] = {}
    shares = box_shares(batches, state.device).unbind()
    for number, (batch, share) in enumerate(zip(batches, shares, strict=True), start=1):
        with state.gradient_sync(is_last=number == len(batches)):
            batch = batch.to(state.device)
            images = batch.images.contiguous(memory_format=torch.channels_last)
            with state.precision.autocast():
                output = state.replica(images, batch.targets)
            terms = criterion(output, batch.targets)
            shown = criterion.shown(terms)
            if state.distiller is not None:
                terms["loss_distill"] = shown["loss_distill"] = state.distiller.loss(images)
            loss = share * torch.stack(list(terms.values())).sum()
            state.precision.scaler.scale(loss).backward()
        losses = {"loss": loss.detach(), **{n: share * v.detach() for n, v in shown.items()}}
        sums = {name: sums.get(name, 0) + value for name, value in losses.items()}
    return dict(zip(sums, all_reduce_mean(torch.stack(list(sums.values()))).unbind(), strict=True))


def seed_step(seed: int, step: int) -> None:
    """Seed what a step draws (denoising, dropout) from (seed, step, rank) alone."""
    key = [seed, step, rank()] if rank() else [seed, step]
    mixed = np.random.SeedSequence(key).generate_state(1, np.uint64)
    torch.manual_seed(int(mixed[0]))


def in_groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """The batches of each step; the last step of an epoch may have fewer."""
    remaining = iter(batches)
    while group := list(islice(remaining, size)):
        yield group


def num_groups(num_batches: int, size: int) -> int:
    """Steps in an epoch of `num_batches` batches."""
    return -(-num_batches // size)


def box_shares(batches: Sequence[Batch], device: torch.device) -> Tensor:
    """The weight of each batch's loss, (len(batches),): its share of the boxes of the step.

    Uses the divisors of the criterion (`loss_normalizer`).
    """
    if len(batches) == 1:
        return torch.ones(1, device=device)
    counts = [sum(len(target.labels) for target in batch.targets) for batch in batches]
    normalizers = loss_normalizer(
        torch.tensor([*counts, sum(counts)], dtype=torch.float32, device=device)
    )
    return normalizers[:-1] / normalizers[-1]
