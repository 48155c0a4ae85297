"""Several batches for one step of the optimizer, with the loss of one large batch.

The criterion divides by the boxes of a batch. Batches with few boxes would weigh as much as those
with many, so each loss gets its batch's share of all boxes of the step. What stays different from
one large batch: BatchNorm sees the small ones, and so does the number of denoising groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from rtdetr_cli.core.distributed import divisor
from rtdetr_cli.core.structures import Batch


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

    Counts are what the criterion divides by (core/distributed.py, divisor).
    """
    if len(batches) == 1:
        return torch.ones(1, device=device)
    counts = [sum(len(target.labels) for target in batch.targets) for batch in batches]
    divisors = divisor(torch.tensor([*counts, sum(counts)], dtype=torch.float32, device=device))
    return divisors[:-1] / divisors[-1]
