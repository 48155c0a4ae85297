"""The texts beside the bar of an epoch: losses, batch, memory, speed, and the end of the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from rtdetr_cli.core.memory import resident_memory
from rtdetr_cli.core.status import Status
from rtdetr_cli.core.structures import Batch
from rtdetr_cli.engine.training.epoch_table import LOSSES, REFINEMENT, shown_losses
from rtdetr_cli.engine.training.run import Run
from rtdetr_cli.engine.training.step import num_groups


class LiveStatus:
    """Called for the texts, at most twice a second.

    A call copies the sums of the losses from the device at once. That waits for nothing, as
    `train_step` has just read the norm of the gradient.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._batches: Sequence[Batch] = ()

    def watch(self, steps: Iterator[list[Batch]]) -> Iterator[list[Batch]]:
        """Yield the batches of each step and remember them."""
        for self._batches in steps:
            yield self._batches

    def __call__(self) -> Status:
        """The texts after a step; the number of boxes is that of this process."""
        sums = self._run.progress.sums
        means = shown_losses(sums.means(), LOSSES | REFINEMENT)
        losses = [f"{name} {value:.3f}" for name, value in means.items()]
        boxes = sum(len(target.labels) for batch in self._batches for target in batch.targets)
        batch = [f"{boxes} boxes", *(_size(one) for one in self._batches[:1])]
        memory = device_memory(self._run.device)
        memory_texts = [] if memory is None else [f"{memory / 1e9:.2f} GB"]
        wait = f"wait {100 * sums.waited / sums.seconds:.0f} %"
        speed = f"{sums.steps / sums.seconds:.2f} it/s"
        texts = (*losses, *batch, *memory_texts, wait)
        return Status(texts, (speed,), seconds_left(self._run))


def seconds_left(run: Run) -> float:
    """Estimate the seconds to the end of the run, from this epoch and the previous one."""
    progress, sums = run.progress, run.progress.sums
    if not progress.is_planned:  # the number of epochs follows from their pace
        return run.pace.budget_left(run.settings)
    steps = num_groups(len(run.data.train_batches), run.settings.accumulate)
    previous = progress.rows[-1:]
    measured = sums.seconds + sum(row["time"] for row in previous)
    per_step = measured / (sums.steps + steps * len(previous))
    left = (run.settings.epochs - progress.epoch) * steps - sums.steps
    return run.pace.seconds_left(run.settings, progress.epoch, left, per_step)


def device_memory(device: torch.device) -> int | None:
    """Bytes that PyTorch has reserved on a GPU; on a CPU the resident memory of this process."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return resident_memory()


def _size(batch: Batch) -> str:
    height, width = batch.images.shape[-2:]
    return f"{height} px" if height == width else f"{height}x{width} px"
