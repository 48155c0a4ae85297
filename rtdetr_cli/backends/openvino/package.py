"""Import OpenVINO and NNCF without telemetry; report missing packages in one sentence."""

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
    """Import OpenVINO without telemetry.

    Raises:
        BackendError: it is not installed.
    """
    with needs_openvino_extra():
        import openvino
    return openvino


@contextmanager
def needs_openvino_extra() -> Iterator[None]:
    """Context for importing OpenVINO or NNCF: no telemetry, one sentence if missing.

    Both send events to Google Analytics, OpenVINO already when imported, through a package that pip
    installs with them. If that package cannot be imported, they send nothing.

    Raises:
        BackendError: the package is not installed.
    """
    loaded = sys.modules.get(_TELEMETRY)
    if loaded is not None:  # imported by other code in this process
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
    """Convert the exceptions of OpenVINO, mostly RuntimeError, to one sentence."""
    try:
        yield
    except (RuntimeError, ValueError, MemoryError, OverflowError) as error:
        reasons = [line for line in str(error).splitlines() if line.strip()]
        reason = reasons[-1].strip() if reasons else type(error).__name__
        raise kind(printable(f"{what}: {reason}")) from error


class _SignalStack(ctypes.Structure):
    """`stack_t` of libc's sigaltstack."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def same_signal_stack() -> Iterator[None]:
    """Restore the signal stack of this thread after a call into OpenVINO.

    On CPUs with AMX, OpenVINO gives the first working thread an alternate signal stack of 20 kB.
    The registers that the kernel saves there overflow it, so that any later signal, such as the
    exit of a loader process or Ctrl-C, would end the program with SIGSEGV.
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
