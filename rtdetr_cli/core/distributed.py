"""The process group of a distributed training; without torch.distributed there is one process.

torchrun, or engine/training/launch.py, starts the workers; each reads its rank from the
environment. Rank 0, the main process, writes files and prints.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from rtdetr_cli.core.errors import BackendError, RTDETRError

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = timedelta(hours=1)
"""Timeout of every collective: longer than one process may be busy downloading or scoring."""
LINGER_S = 1.0
"""A launcher kills all workers when the first exits, so the one with the message exits first."""
_ENVIRONMENT = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_LOST = ("onnection closed by peer", "onnection reset by peer", "Broken pipe")
"""Messages of gloo after a peer has died; it has no exception class for that."""


def is_worker() -> bool:
    """Whether a launcher has started this process, perhaps as the only one."""
    return all(name in os.environ for name in _ENVIRONMENT)


def is_distributed() -> bool:
    """Whether a process group has been initialised."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Rank of this process, 0 without a process group."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of processes, 1 without a process group."""
    return dist.get_world_size() if is_distributed() else 1


def local_rank() -> int:
    """Rank of this process on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """Number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process prints and writes files."""
    return rank() == 0


@contextmanager
def process_group() -> Iterator[None]:
    """Join the launcher's process group; does nothing without a launcher or with one worker.

    CUDA tensors use NCCL, everything else gloo.

    Raises:
        BackendError: another worker has died.
    """
    if not is_worker() or os.environ["WORLD_SIZE"] == "1" or is_distributed():
        yield
        return
    has_nccl = torch.cuda.is_available() and dist.is_nccl_available()
    store, own_rank, count = next(iter(rendezvous("env://", timeout=PATIENCE)))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if has_nccl else "gloo",
        store=_fresh_store(store, own_rank, count),
        rank=own_rank,
        world_size=count,
        timeout=PATIENCE,
    )
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(text in str(error) for text in _LOST):
            raise
        time.sleep(LINGER_S)
        end_all(BackendError("another worker has died, so this one stops too; see its message"))
    dist.destroy_process_group()  # not after an error: it would wait for the dead worker


def _fresh_store(store: Store, own_rank: int, count: int) -> Store:
    """A prefix of the launcher's store that only this start of the job writes to.

    A restarted job gets the store of the previous start, which still holds the addresses of dead
    workers. So rank 0 draws a prefix and sends it to each other worker once that one has arrived.
    """
    name = uuid.uuid4().hex
    if own_rank:
        store.set(f"arrived/{own_rank}", name)
        name = store.get(f"reply/{name}").decode()
        store.set(f"{name}/{own_rank}", "")
        return PrefixStore(name, store)
    for other in range(1, count):
        while not store.check([f"{name}/{other}"]):  # the key may be from the previous start
            store.set(f"reply/{store.get(f'arrived/{other}').decode()}", name)
            time.sleep(0.02)
    return PrefixStore(name, store)


def end_all(error: RTDETRError) -> NoReturn:
    """End every process for one reason, printed once. Every process must call it.

    Raises:
        RTDETRError: in the main process; the others exit silently after it.
    """
    if is_main_process():
        raise error
    time.sleep(LINGER_S)
    raise SystemExit(error.exit_code)


def run_on_main(action: Callable[[], T]) -> T:
    """Run in the main process and return its result everywhere. Every process must call it.

    The action must not itself communicate with the other processes.

    Raises:
        RTDETRError: the action raised it; all processes end.
    """
    if not is_distributed():
        return action()
    outcome: list[Any] = [None, None]
    if is_main_process():
        try:
            outcome[0] = action()
        except RTDETRError as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome)
    value, failure = outcome
    if failure is not None:
        end_all(failure)
    result: T = value
    return result


def main_process_only(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator for `run_on_main`: every process must call the function, the main one runs it."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_on_main(lambda: function(*args, **kwargs))

    return run


def run_on_all(action: Callable[[], T]) -> T:
    """Run in every process; if one fails, all end for its reason.

    The action must not itself communicate with the other processes.

    Raises:
        RTDETRError: the action has failed here or elsewhere.
    """
    if not is_distributed():
        return action()
    failure: RTDETRError | None = None
    value: T | None = None
    try:
        value = action()
    except RTDETRError as error:
        failure = error
    first = next((error for error in all_gather(failure) if error is not None), None)
    if first is not None:
        end_all(first)
    return value  # type: ignore[return-value]  # set, as nothing failed


def all_gather(value: T) -> list[T]:
    """The values of all processes, by rank. Every process must call it."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def all_reduce_max(number: int) -> int:
    """Maximum of a number over all processes. Every process must call it."""
    if not is_distributed():
        return number
    maximum = torch.tensor(number)
    dist.all_reduce(maximum, dist.ReduceOp.MAX)
    return int(maximum.item())


def all_reduce_mean(tensor: Tensor) -> Tensor:
    """Mean of a floating tensor over all processes. Every process must call it."""
    if not is_distributed():
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)  # gloo has no average
    return total / world_size()


def loss_normalizer(count: Tensor) -> Tensor:
    """Divisor of this process' loss sums, so that their mean over processes is the mean per item.

    The mean count, at least one item over all processes. Every process must call it.
    """
    return all_reduce_mean(count).clamp(min=1 / world_size())


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors with those of the main process. Every process must call it."""
    if is_distributed():
        for tensor in tensors:
            dist.broadcast(tensor, 0)
