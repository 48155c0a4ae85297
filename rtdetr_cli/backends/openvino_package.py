"""Imports OpenVINO and NNCF: silently, or with one sentence where they are missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rtdetr_cli.core.errors import BackendError, RTDETRError

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
    """Turn the exceptions of OpenVINO, which are all RuntimeErrors, into one sentence."""
    try:
        yield
    except RuntimeError as error:
        reasons = [line for line in str(error).splitlines() if line.strip()]
        raise kind(f"{what}: {reasons[-1].strip()}") from error
