"""Names and number of devices without torch, for runtimes of exported files."""

from __future__ import annotations

import ctypes
import re
import sys
from typing import NamedTuple

from rtdetr_cli.core.errors import BackendError

_NAME = re.compile(r"(cpu|mps|cuda)(?::(\d+))?", re.ASCII)


class Device(NamedTuple):
    """A device: cpu, mps or cuda, and its number."""

    type: str
    number: int = 0


def parse_device(device: str) -> Device:
    """Parse `cpu`, `mps`, `cuda`, `0` or `cuda:1`.

    Raises:
        BackendError: it is none of these.
    """
    found = _NAME.fullmatch(f"cuda:{device}" if device.isdecimal() else device)
    if found is None:
        raise BackendError(f"device={device} is not a device; try cpu, mps, cuda or 0")
    return Device(found[1], int(found[2] or 0))


def num_cuda_devices() -> int:
    """Count the GPUs that the driver of NVIDIA offers this process (CUDA_VISIBLE_DEVICES)."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
            return 0
    except OSError:
        return 0
    return count.value
