"""Open ONNX Runtime sessions on a requested device; detector.py runs them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rtdetr_cli.backends.onnx.int8_on_cpu import may_saturate, restated_for_cpu
from rtdetr_cli.core.console import warn
from rtdetr_cli.core.cpu import cpu_features, num_threads
from rtdetr_cli.core.devices import Device, num_cuda_devices, parse_device
from rtdetr_cli.core.errors import BackendError, RTDETRError, WeightsError, printable

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def open_session(path: Path, device: str | None, model: bytes | None = None) -> tuple[Any, str]:
    """Open a session, on `model` if given; return it and a description of the runtime."""
    with needs_onnx_extra():
        import onnxruntime
    _warn_of_twins()
    provider = _choose_provider(device, onnxruntime.get_available_providers())
    options = session_options()
    with runtime_errors(WeightsError, f"{path} cannot be opened as ONNX"):
        restated = restated_for_cpu(path) if provider == _CPU and model is None else None
        if not cpu_features().has_int8_dot and (restated is None or may_saturate(restated)):
            # By default x86 without VNNI adds two products of uint8 and int8 in 16 bits.
            options.add_session_config_entry("session.x64quantprecision", "1")
        source = model or restated or str(path)
        session = onnxruntime.InferenceSession(
            source, options, providers=[provider], enable_fallback=0
        )
    running = session.get_providers()[0]
    if provider != _CPU and running == _CPU:
        # If a library is missing, the runtime only logs it and continues without CUDA.
        fault = "ONNX Runtime cannot load CUDA; its CUDA or cuDNN libraries are missing"
        if device is not None:
            raise BackendError(f"device={device}: {fault}")
        warn(f"{fault}: {path.name} runs on the CPU")
    place = running.removesuffix("ExecutionProvider")
    return session, f"ONNX Runtime {onnxruntime.__version__}, {place}"


def session_options() -> Any:  # noqa: ANN401  (of a package that may be absent)
    """Options of every session of this toolkit."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised; log lines may quote the file
    options.intra_op_num_threads = num_threads()
    # Threads that wait spin only briefly, which leaves the core to other processes (core/cpu.py).
    options.add_session_config_entry("session.intra_op.spin_duration_us", "50")
    return options


def _choose_provider(device: str | None, available: list[str]) -> str | tuple[str, dict[str, int]]:
    """CUDA if requested and available, else the CPU.

    Raises:
        BackendError: the runtime does not support the requested device.
    """
    chosen = Device("cuda") if device is None else parse_device(device)
    count = num_cuda_devices() if chosen.type == "cuda" else 0
    if chosen.type == "cpu" or (device is None and not (count and _CUDA in available)):
        return _CPU
    if chosen.type == "cuda" and chosen.number >= count:
        raise BackendError(f"device={device} is not available: this machine has {count} CUDA GPUs")
    if chosen.type == "mps" or _CUDA not in available:
        raise BackendError(
            f"device={device}: the ONNX Runtime installed here runs on the CPU only"
            + ('; pip install "rtdetr-cli[onnx-gpu]"' if chosen.type == "cuda" else "")
        )
    return _CUDA, {"device_id": chosen.number}


def _warn_of_twins() -> None:
    """Warn if both packages are installed: they share a folder, and removing one breaks both."""
    twins = ("onnxruntime", "onnxruntime-gpu")
    if all(any(importlib.metadata.Distribution.discover(name=twin)) for twin in twins):
        warn(f"{' and '.join(twins)} overwrite each other; uninstall both, then install one")


@contextmanager
def needs_onnx_extra() -> Iterator[None]:
    """Report a missing optional package in one sentence.

    Raises:
        BackendError: an import inside the block failed.
    """
    try:
        yield
    except ImportError as error:
        sentence = f'{error.name} is not installed; pip install "rtdetr-cli[onnx]"'
        raise BackendError(sentence) from error


@contextmanager
def runtime_errors(kind: type[RTDETRError], what: str) -> Iterator[None]:
    """Convert the exceptions of ONNX Runtime, which have no common base, to one sentence."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = (
        *(state.EngineError, state.Fail, state.InvalidArgument, state.InvalidGraph),
        *(state.InvalidProtobuf, state.NoModel, state.NoSuchFile, state.NotImplemented),
        *(state.EPFail, state.RuntimeException),
    )
    # pybind11 raises UnicodeDecodeError, a ValueError, for invalid strings in the file.
    try:
        yield
    except (*own, RuntimeError, ValueError, MemoryError, OverflowError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise kind(printable(f"{what}: {reason}")) from error
