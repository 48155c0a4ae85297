"""`rtdetr env`: describe the machine, its packages and runtimes, and the cache."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch.torch_version import TorchVersion

from rtdetr_cli.config.settings.modes import EnvSettings
from rtdetr_cli.core.console import result, result_json
from rtdetr_cli.core.cpu import available_cores, cpu_features, cpu_name
from rtdetr_cli.core.files import rtdetr_home
from rtdetr_cli.core.version import VERSION

_PACKAGES = ("torch", "torchvision", "numpy", "pillow", "opencv-python", "opencv-python-headless")
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnx", "openvino", "nncf", "tensorrt")
SAFE_TORCH = "2.10"
"""First release without CVE-2026-24747 (GHSA-63cw-57p8-fm3p)."""


def env(settings: EnvSettings) -> dict[str, str]:
    """Print what a bug report needs about this machine.

    Returns:
        Name of each item to its text.
    """
    found = dict([*_machine(), *_packages(), *_surroundings()])
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
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory
        yield f"CUDA device {index}", f"{torch.cuda.get_device_name(index)}, {memory / 1e9:.0f} GB"
    if not torch.cuda.is_available():
        yield "CUDA device", f"none (PyTorch is built for CUDA {torch.version.cuda or '-'})"


def _packages() -> Iterator[tuple[str, str]]:
    for package in (*_PACKAGES, *_RUNTIMES):
        installed = _version(package)
        if installed:
            yield package, installed + _remark(package, installed)


def _surroundings() -> Iterator[tuple[str, str]]:
    """The cache and the environment variables that change what runs."""
    home = rtdetr_home()
    yield "RTDETR_HOME", str(home)
    for folder in ("weights", "datasets", "deployed"):
        if (home / folder).is_dir():
            yield f"  {folder}", f"{_size(home / folder) / 1e6:.0f} MB"
    for name, value in sorted(os.environ.items()):
        if name.startswith(("RTDETR_", "OMP_", "GOMP_", "MKL_", "ONEDNN_", "CUDA_VISIBLE")):
            yield name, value


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _remark(package: str, installed: str) -> str:
    """Advisory or execution providers of a package, in parentheses."""
    if package == "torch":
        return torch_advisory(installed)
    if package.startswith("onnxruntime"):
        from onnxruntime import get_available_providers

        names = (one.removesuffix("ExecutionProvider") for one in get_available_providers())
        return f" ({', '.join(names)})"
    return ""


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def torch_advisory(version: str) -> str:
    """The known vulnerability of a PyTorch release, in parentheses; empty if there is none."""
    if TorchVersion(version) >= SAFE_TORCH:
        return ""
    return (
        f" (its torch.load, which rtdetr does not use, has CVE-2026-24747, fixed in {SAFE_TORCH})"
    )
