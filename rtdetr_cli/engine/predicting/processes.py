"""One process per device for `out=`: `device=0,1` here, or workers of torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import IO

from rtdetr_cli.config.fields import field_types
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.core.console import say
from rtdetr_cli.core.cpu import available_cores
from rtdetr_cli.core.errors import BackendError, DataError, RTDETRError, UsageError, WeightsError
from rtdetr_cli.engine.predicting.shards import Predict, open_folder, own_share, write_results

_ERRORS: dict[int, type[RTDETRError]] = {2: UsageError, 4: WeightsError}
"""What a process ended with, by its exit code; else a BackendError."""
_GRACE_S = 10
"""Time that processes have to end after SIGTERM."""


def predict_many(settings: PredictSettings, open_: Callable[[PredictSettings], Predict]) -> int:
    """Write the results, in this process or in one for each of several devices.

    Returns:
        The exit code: 0, or 3 if some images cannot be read, but for workers of torchrun.

    Raises:
        RTDETRError: as `write_results`.
        BackendError: a process has failed; the others have done their share.
    """
    devices = device_names(settings.device)
    if "LOCAL_RANK" in os.environ and settings.shard is None:
        write_results(replace(settings, device=_worker_device(devices)), open_)
        return 0  # torchrun ends the other workers when one has another exit code
    if len(devices) > 1:
        return _start(settings, devices)
    return write_results(settings, open_)


def device_names(device: str | None) -> list[str]:
    """The devices of `0,1` or `[0,1]`.

    Raises:
        UsageError: a GPU is named twice.
    """
    names = [name.strip() for name in (device or "").strip("[]()").split(",") if name.strip()]
    if len(set(names) - {"cpu"}) < sum(name != "cpu" for name in names):
        raise UsageError(f"device={device} names a device twice")
    return names


def _worker_device(devices: list[str]) -> str | None:
    """The device of this worker of torchrun: its own of several, else the GPU of its rank."""
    rank, workers = (int(os.environ.get(key, "1")) for key in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    if len(devices) == workers:
        return devices[rank]
    if len(devices) > 1:
        raise UsageError(
            f"device={','.join(devices)} does not name one device for each of the {workers} "
            "workers on this machine; leave it out"
        )
    if devices and devices != ["cuda"]:
        return devices[0]
    from torch.cuda import is_available  # only workers without a device need to know

    return f"cuda:{rank}" if devices or is_available() else None


def _start(settings: PredictSettings, devices: list[str]) -> int:
    """Run a process on each device and wait for all of them.

    Each gets a share of this process' share: of 1/4 on two devices 1/8 and 5/8.
    """
    open_folder(settings)  # so that its errors come once
    share, shares = own_share(settings)
    cores = max(1, available_cores() // len(devices))
    environment = {"OMP_NUM_THREADS": str(cores), **os.environ}
    running: list[subprocess.Popen[bytes]] = []
    logs: list[threading.Thread] = []
    try:
        for place, device in enumerate(devices):
            shard = f"{share + shares * place}/{shares * len(devices)}"
            command = [sys.executable, "-m", "rtdetr_cli", "predict"]
            command += arguments(replace(settings, device=device, shard=shard))
            process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
            running.append(process)
            logs.append(threading.Thread(target=_forward, args=(process.stderr, device)))
            logs[-1].start()
        codes = [process.wait() for process in running]
    finally:
        _end(running)
        for log in logs:
            log.join()
    return _exit_code(codes, devices)


def arguments(settings: PredictSettings) -> list[str]:
    """The settings as arguments of the command: every key that is not at its default."""
    fields = type(settings).__dataclass_fields__
    values = {key: getattr(settings, key) for key in field_types(type(settings))}
    return [
        f"{key}={_text(value)}" for key, value in values.items() if value != fields[key].default
    ]


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def _forward(stream: IO[bytes], device: str) -> None:
    """Print the log output of a process, line by line, after the name of its device."""
    with stream:
        for line in stream:
            say(f"{device}: {line.decode('utf-8', 'replace').rstrip()}")


def _end(running: list[subprocess.Popen[bytes]]) -> None:
    """End the processes that still run, after an error or Ctrl-C."""
    for process in running:
        if process.poll() is None:
            process.terminate()
    for process in running:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
        if process.poll() is None:
            process.kill()


def _exit_code(codes: list[int], devices: list[str]) -> int:
    """3 if images are unreadable.

    Raises:
        RTDETRError: a process has failed.
    """
    for code, device in zip(codes, devices, strict=True):
        if code not in {0, DataError.exit_code}:
            raise _ERRORS.get(code, BackendError)(
                f"the process on {device} ended with code {code}; see its message above. "
                "resume=true continues"
            )
    return max(codes)
