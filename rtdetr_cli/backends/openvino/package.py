"""Imports OpenVINO and NNCF: silently, or with one sentence where they are missing."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rtdetr_cli.core.errors import BackendError, RTDETRError, printable

_TELEMETRY = "openvino_telemetry"


def version() -> str:
    """OpenVINO's release."""
    return str(openvino_package().__version__).partition("-")[0]


def openvino_package() -> Any:  # noqa: ANN401
    """OpenVINO, which tells nobody that it was imported.

    Raises:
        BackendError: it is not installed.
    """
    with needs_openvino_extra():
        import openvino
    return openvino


@contextmanager
def needs_openvino_extra() -> Iterator[None]:
    """Around an import of OpenVINO or NNCF: no telemetry, and one sentence where it is missing.

    Both send events to Google Analytics, OpenVINO at its import already, if they find a package
    that pip installs with them. Without it they are silent.

    Raises:
        BackendError: the package is not installed.
    """
    loaded = sys.modules.get(_TELEMETRY)
    if loaded is not None:  # by another program in this process, which has its reporter already
        with suppress(RuntimeError):
            loaded.Telemetry().consent = False
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    except ImportError as error:
        sentence = f'{error.name} is not installed; pip install "rtdetr-cli[onnx,openvino]"'
        raise BackendError(sentence) from error


@contextmanager
def runtime_errors(kind: type[RTDETRError], what: str) -> Iterator[None]:
    """Turn the exceptions of OpenVINO, RuntimeErrors as a rule, into one sentence."""
    try:
        yield
    except (RuntimeError, ValueError, MemoryError, OverflowError) as error:
        reasons = [line for line in str(error).splitlines() if line.strip()]
        reason = reasons[-1].strip() if reasons else type(error).__name__
        raise kind(printable(f"{what}: {reason}")) from error


class _SignalStack(ctypes.Structure):
    """What `sigaltstack` of libc reads and writes."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def same_signal_stack() -> Iterator[None]:
    """Around work of OpenVINO: signals are handled where they were handled before.

    On CPUs with AMX the first thread at work gets a stack of 20 kB, on which its signal handlers
    run from then on. With the registers that the system stores there at each signal it overflows: a
    loading process that ends, or Ctrl-C, would end the program by SIGSEGV.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    libc, before = ctypes.CDLL(None), _SignalStack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)
