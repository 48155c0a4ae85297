"""What a process must know about its siblings; without torch.distributed it is alone.

torchrun, or engine/training/launch.py in its place, starts the workers; each reads its rank from
the environment. Whoever acts for all is the main process, rank 0.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from rtdetr_cli.core.errors import BackendError, RTDETRError

T = TypeVar("T")

PATIENCE = timedelta(hours=1)
"""How long one process waits for another: longer than a download or a scoring may differ."""
LINGER_S = 1.0
"""A launcher ends all workers as soon as one has gone; the one that knows why must be the first."""
_ENVIRONMENT = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_LOST = ("onnection closed by peer", "onnection reset by peer", "Broken pipe")
"""What gloo says when a sibling has died; it has no error of its own for that."""


def is_worker() -> bool:
    """Whether a launcher has started this process, perhaps as the only one."""
    return all(name in os.environ for name in _ENVIRONMENT)


def is_distributed() -> bool:
    """Whether a process group has been initialised."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process, 0 when alone."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of processes, 1 when alone."""
    return dist.get_world_size() if is_distributed() else 1


def local_rank() -> int:
    """Number of this process among those of this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """Number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process does the talking and the writing."""
    return rank() == 0


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the launcher's workers while this is entered; alone, nothing happens.

    Tensors on GPUs travel by NCCL, all else by gloo.

    Raises:
        BackendError: another worker has died.
    """
    if not is_worker() or os.environ["WORLD_SIZE"] == "1" or is_distributed():
        yield
        return
    has_nccl = torch.cuda.is_available() and dist.is_nccl_available()
    store, number, count = next(iter(rendezvous("env://", timeout=PATIENCE)))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if has_nccl else "gloo",
        store=_of_this_start(store, number, count),
        rank=number,
        world_size=count,
        timeout=PATIENCE,
    )
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(text in str(error) for text in _LOST):
            raise
        time.sleep(LINGER_S)
        end_all(BackendError("another worker has ended, so this one ends too; see what it said"))
    dist.destroy_process_group()  # not after an error: it would wait for the dead


def _of_this_start(store: Store, number: int, count: int) -> Store:
    """A part of the launcher's store where only this start of the job writes.

    A restarted job gets the store of the one before, with the addresses of its dead in it. So the
    first worker makes up a name, and tells each of the others as soon as it has come itself.
    """
    name = uuid.uuid4().hex
    if number:
        store.set(f"came/{number}", name)
        name = store.get(f"answer/{name}").decode()
        store.set(f"{name}/{number}", "")
        return PrefixStore(name, store)
    for other in range(1, count):
        while not store.check([f"{name}/{other}"]):  # until then it may be its dead forerunner
            store.set(f"answer/{store.get(f'came/{other}').decode()}", name)
            time.sleep(0.02)
    return PrefixStore(name, store)


def end_all(error: RTDETRError) -> NoReturn:
    """End every process for one reason, told once. Every process must call it.

    Raises:
        RTDETRError: in the main process; the others leave silently when it has spoken.
    """
    if is_main_process():
        raise error
    time.sleep(LINGER_S)
    raise SystemExit(error.exit_code)


def from_main(action: Callable[[], T]) -> T:
    """Let the main process act and tell its answer to all. Every process must call it.

    Raises:
        RTDETRError: what the action raises ends all of them.
    """
    if not is_distributed():
        return action()
    told: list[Any] = [None, None]
    if is_main_process():
        try:
            told[0] = action()
        except RTDETRError as error:
            told[1] = error
    dist.broadcast_object_list(told)
    if told[1] is not None:
        end_all(told[1])
    answer: T = told[0]
    return answer


def together(action: Callable[[], T]) -> T:
    """Act in every process; if one fails, all end for its reason.

    The action must not itself wait for the other processes.

    Raises:
        RTDETRError: the action has failed here or elsewhere.
    """
    if not is_distributed():
        return action()
    failure: RTDETRError | None = None
    answer: T | None = None
    try:
        answer = action()
    except RTDETRError as error:
        failure = error
    first = next((error for error in gathered(failure) if error is not None), None)
    if first is not None:
        end_all(first)
    return answer  # type: ignore[return-value]  # it is there, as nothing failed


def gathered(value: T) -> list[T]:
    """What every process has, in the order of their ranks. Every process must call it."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def largest(number: int) -> int:
    """The largest number that a process has. Every process must call it."""
    if not is_distributed():
        return number
    found = torch.tensor(number)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found.item())


def all_reduce_mean(tensor: Tensor) -> Tensor:
    """Mean of a floating tensor over all processes. Every process must call it."""
    if not is_distributed():
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)  # gloo has no average
    return total / world_size()


def divisor(count: Tensor) -> Tensor:
    """What sums of this process are divided by so that their mean over processes is per item.

    That is the mean count, at least one item in all processes together. Every process must call it.
    """
    return all_reduce_mean(count).clamp(min=1 / world_size())


def copy_from_main(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors with those of the main process. Every process must call it."""
    if is_distributed():
        for tensor in tensors:
            dist.broadcast(tensor, 0)
