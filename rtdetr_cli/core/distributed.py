"""What a process must know about its siblings; without torch.distributed it is alone."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Whether a process group has been initialised."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process, 0 when alone."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of processes, 1 when alone."""
    return dist.get_world_size() if is_distributed() else 1


def local_world_size() -> int:
    """Processes on this machine, as torchrun says; otherwise all processes."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))


def is_main_process() -> bool:
    """Whether this process does the talking and the writing."""
    return rank() == 0


def all_reduce_mean(tensor: Tensor) -> Tensor:
    """Mean of a floating tensor over all processes. Every process must call it."""
    if not is_distributed():
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)  # gloo has no average
    return total / world_size()


def all_reduce_min(value: int, device: torch.device) -> int:
    """Smallest value of all processes. Every process must call it, with its own device."""
    if not is_distributed():
        return value
    least = torch.tensor(value, device=device)
    dist.all_reduce(least, dist.ReduceOp.MIN)
    return int(least.item())
