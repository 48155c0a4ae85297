"""`rtdetr env`: describe the machine, its packages and runtimes, and the cache."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch.torch_version import TorchVersion

from rtdetr_cli.config.settings.modes import EnvSettings
from rtdetr_cli.core.console import result, result_json
from rtdetr_cli.core.cpu import available_cores, cpu_features, cpu_name
from rtdetr_cli.core.files import rtdetr_home, tilde
from rtdetr_cli.core.memory import free_memory
from rtdetr_cli.core.version import VERSION

_PACKAGES = ("torch", "torchvision", "numpy", "pillow", "opencv-python", "opencv-python-headless")
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnx", "openvino", "nncf", "tensorrt")
_CACHES = ("weights", "datasets", "downloads", "deployed", "tensorrt", "cache")
_DRIVER = Path("/proc/driver/nvidia/version")
SAFE_TORCH = "2.10"
"""First release without CVE-2026-24747 (GHSA-63cw-57p8-fm3p)."""


def env(settings: EnvSettings) -> dict[str, str]:
    """Print what a bug report needs about this machine.

    Returns:
        Name of each item to its text.
    """
    found = dict([*_machine(), *_devices(), *_packages(), *_surroundings()])
    width = max(map(len, found)) + 2
    if settings.json:
        result_json(json.dumps(found))
    else:
        result(*(f"{name:<{width}}{text}" for name, text in found.items()))
    return found


def _machine() -> Iterator[tuple[str, str]]:
    yield "rtdetr", f"{VERSION}, Apache-2.0"
    yield "Python", f"{platform.python_version()}, {platform.platform()}"
    yield "CPU", f"{cpu_name()}: {cpu_features().describe()}"
    cores = f"{available_cores()} of {os.cpu_count()} for this process"
    yield "cores", f"{cores}, {torch.get_num_threads()} threads"
    memory = free_memory()
    yield "memory", "unknown" if memory is None else f"{_giga(memory)} available"


def _devices() -> Iterator[tuple[str, str]]:
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        able = f"compute capability {gpu.major}.{gpu.minor}"
        yield f"CUDA device {index}", f"{gpu.name}, {_giga(gpu.total_memory)}, {able}"
    if not torch.cuda.is_available():
        yield "CUDA device", f"none (PyTorch is built for CUDA {torch.version.cuda or '-'})"
    if driver := nvidia_driver(_DRIVER):
        yield "NVIDIA driver", driver
    if torch.backends.mps.is_available():
        yield "MPS device", "yes"


def nvidia_driver(file: Path) -> str | None:
    """Release of the kernel driver on Linux, from its own file; None without one."""
    try:
        found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", file.read_text(errors="replace"))
    except OSError:
        return None
    return found[1] if found else None


def _packages() -> Iterator[tuple[str, str]]:
    for package in (*_PACKAGES, *_RUNTIMES):
        installed = _version(package)
        if installed:
            yield package, installed + _remark(package, installed)


def _surroundings() -> Iterator[tuple[str, str]]:
    """The cache and the environment variables that change what runs."""
    home = rtdetr_home()
    yield "home folder", tilde(home)
    for folder in (home / name for name in _CACHES):
        if folder.is_dir():
            yield f"  {folder.name}", f"{_size(folder) / 1e6:.0f} MB"
    existing = next(path for path in (home, *home.absolute().parents) if path.is_dir())
    yield "  free disk", _giga(shutil.disk_usage(existing).free)
    for name, value in sorted(os.environ.items()):
        if name.startswith(("RTDETR_", "OMP_", "GOMP_", "MKL_", "ONEDNN_", "CUDA_VISIBLE")):
            yield name, tilde(value)
    yield "licences", "this toolkit: Apache-2.0; those of weights: `rtdetr models`"


def _giga(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _remark(package: str, installed: str) -> str:
    """Advisory, execution providers or devices of a package, in parentheses."""
    if package == "torch":
        return torch_advisory(installed)
    if package.startswith("onnxruntime"):
        from onnxruntime import get_available_providers

        names = (one.removesuffix("ExecutionProvider") for one in get_available_providers())
        return f" ({', '.join(names)})"
    if package == "openvino":
        from openvino import Core

        return f" ({', '.join(Core().available_devices)})"
    if package == "opencv-python-headless" and _version("opencv-python"):
        return " (beside opencv-python: both install cv2, keep one)"
    return ""


def _size(folder: Path) -> int:
    """Bytes of the files below a folder; those that disappear meanwhile are left out."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):
            total += file.lstat().st_size
    return total


def torch_advisory(version: str) -> str:
    """The known vulnerability of a PyTorch release, in parentheses; empty if there is none."""
    if TorchVersion(version) >= SAFE_TORCH:
        return ""
    return (
        f" (its torch.load, which rtdetr does not use, has CVE-2026-24747, fixed in {SAFE_TORCH})"
    )
