"""Run a checkpoint in PyTorch, or export it for another runtime once and cache the file.

`backend=auto` takes the fastest runtime of this CPU whose export passes the verdict (verdict.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from rtdetr_cli.backends.load import Detector, load_detector
from rtdetr_cli.backends.onnx.session import needs_onnx_extra
from rtdetr_cli.backends.openvino.package import version as openvino_version
from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.config.settings.val import ValSettings
from rtdetr_cli.core.console import say, warn
from rtdetr_cli.core.cpu import cpu_features
from rtdetr_cli.core.devices import parse_device
from rtdetr_cli.core.errors import BackendError, UsageError
from rtdetr_cli.core.files import rtdetr_home, sha256, storage_errors
from rtdetr_cli.core.lock import file_lock
from rtdetr_cli.core.version import VERSION
from rtdetr_cli.weights.store import resolve_weights


class Runtime(NamedTuple):
    """A runtime, and whether it computes in 16 bits."""

    name: str
    half: bool


WITH_BF16 = (Runtime("openvino", half=True), Runtime("torch", half=True))
WITHOUT_BF16 = (Runtime("openvino", half=False), Runtime("onnx", half=False))
"""Fastest first, by measurement (docs/benchmarks.md); PyTorch in float32 comes last."""
PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime", "torch": "torch"}
FILES = {"openvino": "model_openvino_model", "onnx": "model.onnx"}
KEPT = 8
"""Exported models in the cache; beyond, the least recently used is removed."""


def open_detector(settings: PredictSettings | ValSettings) -> Detector:
    """Open a detector in the runtime that `backend` and `device` select.

    Raises:
        WeightsError: the file is absent, damaged or foreign.
        BackendError: its runtime is missing, or the outputs of the exported file differ from
            PyTorch's.
        UsageError: a key that the model or the device does not support.
    """
    backend = settings.backend
    if backend == "torch":
        return _in_torch(settings, settings.half)
    if not _is_cpu(settings.device):
        if backend != "auto":
            raise UsageError(f"backend={backend} runs on the CPU; give device=cpu with it")
        return _in_torch(settings, half=False)
    if backend != "auto":
        return _opened(settings, Runtime(backend, settings.half))
    for runtime in WITH_BF16 if cpu_features().has_bf16 else WITHOUT_BF16:
        if find_spec(PACKAGES[runtime.name]):
            try:
                return _opened(settings, runtime)
            except BackendError as error:
                warn(f"backend=auto continues without {runtime.name}: {error}")
    return _in_torch(settings, half=False)


def _is_cpu(device: str | None) -> bool:
    if device is not None:
        return parse_device(device).type == "cpu"
    from rtdetr_cli.backends.torch import choose_device

    return choose_device(None).type == "cpu"


def _in_torch(settings: PredictSettings | ValSettings, half: bool) -> Detector:
    detector = load_detector(
        settings.model,
        settings.device,
        settings.decoder_layers,
        settings.num_queries,
        half,
        settings.timeout,
        settings.family,
    )
    if isinstance(settings, PredictSettings) and detector.network is not None:
        from rtdetr_cli.backends.torch import TorchDetector

        if isinstance(detector, TorchDetector):
            detector.release_network()
    return detector


def _opened(settings: PredictSettings | ValSettings, runtime: Runtime) -> Detector:
    if runtime.name == "torch":
        return _in_torch(settings, runtime.half)
    return load_detector(str(deployed_file(settings, runtime)), "cpu")


def deployed_file(settings: PredictSettings | ValSettings, runtime: Runtime) -> Path:
    """The weights exported for a runtime: from `RTDETR_HOME/deployed`, or written there.

    Raises:
        BackendError: its outputs differ from PyTorch's, now or when it was written.
        StorageError: disk full or no permission.
    """
    weights = resolve_weights(settings.model)
    folder = rtdetr_home() / "deployed" / _key(weights, settings, runtime)
    path = folder / FILES[runtime.name]
    with file_lock(folder):
        if not path.exists():
            _write(path, weights, settings, runtime)
        with storage_errors(folder):
            os.utime(folder)
    return path


def _key(weights: Path, settings: PredictSettings | ValSettings, runtime: Runtime) -> str:
    """Cache key over everything that affects the output."""
    files = [weights] if weights.is_file() else sorted(p for p in weights.rglob("*") if p.is_file())
    parts = {
        "weights": [sha256(file) for file in files],
        "runtime": [*runtime, _version(runtime)],
        "rtdetr": VERSION,
        "family": settings.family,
        "imgsz": settings.imgsz,
        "decoder_layers": settings.decoder_layers,
        "num_queries": settings.num_queries,
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _version(runtime: Runtime) -> str:
    """Release of the package that runs the file.

    Raises:
        BackendError: it is not installed.
    """
    if runtime.name == "openvino":
        return openvino_version()
    with needs_onnx_extra():
        import onnxruntime
    return str(onnxruntime.__version__)


def _write(
    path: Path, weights: Path, settings: PredictSettings | ValSettings, runtime: Runtime
) -> None:
    """Export into the cache; a failed file is kept, so that the next call does not retry."""
    failed = next(path.parent.glob("*failed*"), None)
    if failed:
        raise BackendError(
            f"outputs of {failed} differed from PyTorch when it was written; remove {path.parent} "
            "to try again"
        )
    say(f"writing {settings.model} for {runtime.name}, once; it is kept in {path.parent}")
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with redirect_stdout(sys.stderr):  # the result of an export is log output here
        _export(
            ExportSettings(
                model=str(weights),
                family=settings.family,
                format=runtime.name,
                half=runtime.half,
                output=str(path),
                imgsz=settings.imgsz,
                decoder_layers=settings.decoder_layers,
                num_queries=settings.num_queries,
            )
        )
    _forget_oldest(path.parent.parent)


def _export(settings: ExportSettings) -> None:
    """Export to the format of a runtime; imported here because only a cache miss needs it."""
    if settings.format == "openvino":
        from rtdetr_cli.engine.exporting.openvino import export_openvino

        export_openvino(settings)
    else:
        from rtdetr_cli.engine.exporting.onnx import export_onnx

        export_onnx(settings)


def _forget_oldest(home: Path) -> None:
    """Remove all but the most recently used exports."""
    folders = [folder for folder in home.iterdir() if folder.is_dir()]
    for folder in sorted(folders, key=lambda one: one.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(folder, ignore_errors=True)
