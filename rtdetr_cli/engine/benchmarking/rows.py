"""Rows of `rtdetr benchmark`: the formats by name, and the file of each.

A name is torch or a format of `rtdetr export`, with the suffix -half, -int8 or both for lower
precision; benchmark.py measures the rows.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import torch

from rtdetr_cli.backends.autocast import DTYPE_NAMES, half_dtype
from rtdetr_cli.backends.openvino.detector import FOLDER
from rtdetr_cli.backends.tensorrt.detector import open_gpu
from rtdetr_cli.config.fields import allowed_texts, field_types
from rtdetr_cli.config.settings.benchmark import BenchmarkSettings
from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.core.errors import BackendError, RTDETRError, UsageError, nearest
from rtdetr_cli.engine.export import export_file
from rtdetr_cli.engine.exporting.report import PRECISION, megabytes, report_file

PACKAGES = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino", "nncf")}
"""Packages that a format needs; nncf for 8 bits only."""


@dataclass(frozen=True)
class Row:
    """Measurements of one format; None for what was not measured.

    Attributes:
        format: name of the format, as in `known_formats`.
        precision: of the weights in the file.
        path: the file.
        megabytes: its size.
        ap: of 1, if the images have labels.
        matched: share of the raw detections that match PyTorch's, weighted by score.
        box_drift_px: 99th percentile, pixels of the image.
        score_drift: 99th percentile.
        lost: detections of PyTorch that it does not find.
        new: detections that PyTorch does not find.
        p50_ms: median time per image, post-processing included.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile.
        per_second: images per second in batches of `batch`.
        memory_mb: peak memory of a fresh process after single images.
        reason: why it did not run, if it did not.
    """

    format: str
    precision: str = PRECISION
    path: str | None = None
    megabytes: float | None = None
    ap: float | None = None
    matched: float | None = None
    box_drift_px: float | None = None
    score_drift: float | None = None
    lost: int | None = None
    new: int | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    per_second: float | None = None
    memory_mb: float | None = None
    reason: str | None = None


def known_formats() -> list[str]:
    """All valid names in `formats`."""
    formats = allowed_texts(field_types(ExportSettings)["format"])[0].values
    exported = [f"{name}{kind}" for name in formats for kind in ("", "-half", "-int8")]
    return ["torch", "torch-half", *exported, "openvino-int8-half"]


def chosen_formats(formats: str | None) -> list[str]:
    """PyTorch first, then the requested formats, by default all.

    Raises:
        UsageError: a format is unknown.
    """
    known = known_formats()
    requested = known if formats is None else [one.strip() for one in formats.split(",")]
    for name in requested:
        if name not in known:
            raise UsageError(
                f"benchmark: formats={name} is none of {', '.join(known)}{nearest(name, known)}"
            )
    return list(dict.fromkeys(["torch", *requested]))


def written(
    name: str, model: str, settings: BenchmarkSettings, run_dir: Path, device: torch.device
) -> Row:
    """Write the file of a format; on failure the row has the reason."""
    row = Row(name)
    try:
        if name == "torch":
            return _with_file(row, Path(model))
        if name == "torch-half":
            precision = DTYPE_NAMES[half_dtype(device)]
            return _with_file(replace(row, precision=precision), Path(model))
        _check_requirements(name, settings)
        path = _exported(name, model, settings, run_dir)
        report = json.loads(report_file(path).read_text())
    except RTDETRError as error:  # fails this row only
        return replace(row, reason=str(error))
    return _with_file(replace(row, precision=report["precision"]), path)


def _check_requirements(name: str, settings: BenchmarkSettings) -> None:
    """Fail before tracing, which takes a minute.

    Raises:
        BackendError: a package or a GPU is missing.
        UsageError: no calibration data.
    """
    format_, *kinds = name.split("-")
    if "int8" in kinds and settings.data is None:
        raise UsageError("8 bits are calibrated on real images: give data=")
    if format_ == "engine":
        open_gpu(settings.device)
    for package in PACKAGES.get(format_, ()):
        if find_spec(package) is None and (package != "nncf" or "int8" in kinds):
            extra = "onnx" if format_ == "onnx" else "onnx,openvino"
            raise BackendError(f'{package} is not installed; pip install "rtdetr-cli[{extra}]"')


def _exported(name: str, model: str, settings: BenchmarkSettings, run_dir: Path) -> Path:
    format_, *kinds = name.split("-")
    stem = "_".join([Path(model).stem, *kinds])
    output = f"{stem}{FOLDER}" if format_ == "openvino" else f"{stem}.{format_}"
    traced = run_dir / f"{stem}.onnx"
    wanted = ExportSettings(
        model=model,
        format=format_,
        output=str(run_dir / output),
        imgsz=settings.imgsz,
        half="half" in kinds,
        int8="int8" in kinds,
        data=settings.data if "int8" in kinds else None,
        device=settings.device,
    )
    if format_ == "engine" and traced.is_file():  # size and precision are those of the ONNX file
        wanted = replace(wanted, model=str(traced), imgsz=None, half=False, int8=False)
    with redirect_stdout(sys.stderr):  # the result of an export is log output here
        return export_file(wanted)


def _with_file(row: Row, path: Path) -> Row:
    return replace(row, path=str(path), megabytes=megabytes(path))
