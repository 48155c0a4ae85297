"""Start a worker for each device of `device=0,1`, with the launcher behind torchrun."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import torch

from rtdetr_cli.backends.torch import choose_device
from rtdetr_cli.config.load import load_yaml
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.bounded_text import show
from rtdetr_cli.core.console import say
from rtdetr_cli.core.cpu import available_cores
from rtdetr_cli.core.distributed import is_main_process, is_worker, local_rank, local_world_size
from rtdetr_cli.core.errors import BackendError, DataError, RTDETRError, UsageError, WeightsError
from rtdetr_cli.data.splits import ensure_present, load_data
from rtdetr_cli.engine.training.resume import given_keys, run_folder
from rtdetr_cli.engine.training.run_log import primitives

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

OUTCOME = "RTDETR_OUTCOME"
"""Environment variable: the file to which the main worker writes the result of `train`."""
_ERRORS = {kind.exit_code: kind for kind in (UsageError, DataError, WeightsError, BackendError)}
_CHATTY = ("multiprocessing.api", "agent.server.api")
"""Loggers of the launcher for failures that this file reports in a sentence."""
_TAKEN = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
"""Signals for which PyTorch's launcher sets handlers that it does not restore."""


def launch(settings: TrainSettings, devices: list[str]) -> object:
    """Train with one worker for each device, all on this machine.

    Returns:
        The result of `train` in the main worker.

    Raises:
        RTDETRError: a worker has failed; it has the exit code of its error.
        KeyboardInterrupt: Ctrl-C; the workers have saved the run.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for part in _CHATTY:
        logging.getLogger(f"torch.distributed.elastic.{part}").setLevel(logging.CRITICAL)
    if settings.data:  # a question is asked before the workers start
        ensure_present(load_data(settings.data, settings.download))
    say(f"starting {len(devices)} workers on {', '.join(devices)}")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=len(devices),
        run_id=f"rtdetr-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    arguments = ["-m", "rtdetr_cli", *worker_arguments(settings, devices)]
    with tempfile.TemporaryDirectory(prefix="rtdetr-") as folder, _worker_environment(len(devices)):
        os.environ[OUTCOME] = str(Path(folder) / "outcome")
        try:
            elastic_launch(config, sys.executable)(*arguments)
        except SignalException as error:
            _leave(128 + error.sigval)
        except ChildFailedError as error:
            _fail(*error.get_first_failure())
        return pickle.loads(
            Path(os.environ[OUTCOME]).read_bytes()
        )  # written by our own worker in a private folder


def leave_outcome(outcome: object) -> None:
    """Pass the result of `train` from the main worker to the launching process."""
    path = os.environ.get(OUTCOME)
    if path and is_main_process():
        Path(path).write_bytes(pickle.dumps(outcome))


def worker_arguments(settings: TrainSettings, devices: list[str]) -> list[str]:
    """Command-line arguments of a worker: every key that the user has set, and the devices."""
    values = {**primitives(settings), "device": devices}
    keys = sorted({*given_keys(settings), "device"})
    return ["train", *(f"{key}={_format(values[key])}" for key in keys)]


def _format(value: object) -> str:
    """A value as on the command line."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


@contextmanager
def _worker_environment(workers: int) -> Iterator[None]:
    """The environment that workers inherit; restores it and the signal handlers afterwards."""
    before = dict(os.environ)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // workers)))
    numbers = [getattr(signal, name) for name in _TAKEN if hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler or signal.SIG_DFL)


def _fail(number: int, failure: ProcessFailure) -> NoReturn:
    """Report the first worker that failed."""
    code = failure.exitcode
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; the system does so when memory runs out" if name == "SIGKILL" else ""
        raise BackendError(
            f"worker {number} was killed by {name}{hint}; `rtdetr train resume=true` continues"
        )
    if code > 128:
        _leave(code)
    kind: type[RTDETRError] = _ERRORS.get(code, BackendError)
    raise kind(f"worker {number} ended with code {code}; see its message above")


def _leave(code: int) -> NoReturn:
    """Exit like a process that received the signal."""
    if code == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(code)


def devices_to_launch(settings: TrainSettings) -> list[str]:
    """The devices to start workers for; empty if this process trains itself.

    Raises:
        UsageError: devices that cannot train together, or a batch that they cannot share.
        BackendError: a device does not exist.
    """
    if is_worker():
        return []
    device = settings.device
    if device is None and settings.resume:
        args = run_folder(settings) / "args.yaml"
        device = load_yaml(args).get("device") if args.is_file() else None
        if not isinstance(device, str | None):
            raise UsageError(f"{args}: device must be a text, found {show(device)}")
    names = _names(device)
    if len(names) < 2:
        return []
    if not settings.resume:
        check_shares(settings.batch, len(names))
    for name in dict.fromkeys(names):
        choose_device(name)
    return names


def check_shares(batch: int, workers: int) -> None:
    """Check that the workers can share a batch equally.

    Raises:
        UsageError: they cannot.
    """
    if batch % workers:
        close = max(1, round(batch / workers)) * workers
        raise UsageError(
            f"train: batch={batch} is that of all {workers} workers together and must be a "
            f"multiple of {workers}, for example {close}"
        )


def worker_device(device: str | None) -> torch.device:
    """The device of this process; a worker uses the one of its local rank.

    Raises:
        UsageError: the number of devices differs from the number of workers.
        BackendError: the device does not exist.
    """
    names, workers = _names(device), local_world_size()
    if len(names) == workers:
        chosen = choose_device(names[local_rank()])
    elif workers == 1 and not names:
        chosen = choose_device(None)
    elif device == "cpu" or (device is None and not torch.cuda.is_available()):
        chosen = choose_device("cpu")
    elif device in {None, "cuda"}:
        chosen = choose_device(f"cuda:{local_rank()}")
    else:
        raise UsageError(
            f"train: device={device} does not name one device for each of the {workers} workers "
            "on this machine; leave it out, or give device=cuda or device=cpu"
        )
    if chosen.type == "cuda" and workers > 1:
        torch.cuda.set_device(chosen)  # NCCL uses the current device
    return chosen


def _names(device: str | None) -> list[str]:
    """Split `0,1` or `[0,1]`.

    Raises:
        UsageError: a GPU beside other devices, or one twice.
    """
    names = [name.strip() for name in (device or "").strip("[]()").split(",") if name.strip()]
    distinct = set(names) - {"cpu", "mps"}
    if len(names) > 1 and set(names) != {"cpu"} and len(distinct) < len(names):
        raise UsageError(f"train: device={device} must name different GPUs, or cpu only")
    return names
