"""Export to OpenVINO: a folder from the traced network, compared with PyTorch on real pictures.

The folder gets its name only if it answers as PyTorch does; the format stands in backends/.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from rtdetr_cli import __version__
from rtdetr_cli.backends.contract import INPUTS, Feed
from rtdetr_cli.backends.onnx import write_onnx
from rtdetr_cli.backends.openvino import (
    FOLDER,
    OpenVINODetector,
    folder_files,
    openvino_package,
    version,
    write_notes,
    write_openvino,
)
from rtdetr_cli.backends.torch import TorchDetector
from rtdetr_cli.config.export_settings import ExportSettings
from rtdetr_cli.config.fields import YAML_SUFFIXES
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.console import result, say, warn
from rtdetr_cli.core.errors import BackendError, UsageError
from rtdetr_cli.core.files import atomic_folder
from rtdetr_cli.engine.export import Report, open_weights_to_export, pictures_to_compare
from rtdetr_cli.engine.verdict import LIMITS, compare, find_pictures, prepare, warn_if_unsure
from rtdetr_cli.weights.store import resolve_weights

CALIBRATION_PICTURES = 200


def export_openvino(settings: ExportSettings) -> Path:
    """Write a folder and compare it; the report stands beside it.

    Args:
        settings: every key of `rtdetr export`.

    Returns:
        The folder.

    Raises:
        UsageError: the model is no checkpoint, or the output has another ending.
        BackendError: a package is missing, or the folder does not answer as PyTorch does; it is
            then kept as `<name>_failed_openvino_model`.
    """
    path = _output_path(settings)
    openvino_package()  # missing: said before the network is traced
    detector, preprocessing = open_weights_to_export(settings)
    reference = TorchDetector(
        detector.network, detector.names, preprocessing, detector.device, fused=False
    )
    with TemporaryDirectory() as place:
        folder = Path(place) / path.name
        folder.mkdir()
        notes = _write(settings, folder, reference)
        report = _judge(settings, folder, reference, notes)
        if report.agreement and not report.agreement.passes:
            path = path.with_name(f"{path.name.removesuffix(FOLDER)}_failed{FOLDER}")
        with atomic_folder(path, folder_files(folder)) as final:
            shutil.copytree(folder, final, dirs_exist_ok=True)
    report_path = report.write(path)
    if report.agreement and not report.agreement.passes:
        raise BackendError(
            f"the files answer otherwise than PyTorch: {'; '.join(report.agreement.faults)}; they "
            f"are kept in {path}, the numbers stand in {report_path.name}"
        )
    _print(settings, path, report, report_path)
    return path


def _write(settings: ExportSettings, folder: Path, reference: TorchDetector) -> dict[str, Any]:
    """The files, without a verdict yet."""
    calibration = None
    if settings.int8:
        assert settings.data  # ExportSettings refuses int8 without
        calibration = training_inputs(settings.data, reference.preprocessing)
        say(f"int8: calibrating on {CALIBRATION_PICTURES} pictures at most takes minutes")
    say(f"{reference.description}; tracing takes a minute")
    with TemporaryDirectory() as place:
        onnx_path = Path(place) / "model.onnx"
        write_onnx(onnx_path, reference.network, reference.names, reference.preprocessing)
        return write_openvino(folder, onnx_path, settings.half, calibration)


def training_inputs(data: str, preprocessing: Preprocessing) -> Iterator[Feed]:
    """Pictures of the train split, or of a folder, prepared as at inference, one by one."""
    pictures = find_pictures(data, CALIBRATION_PICTURES, "train")
    images, sizes = INPUTS
    for index in range(len(pictures.sources)):
        (picture,) = pictures.read(index, index + 1)
        size_wh = np.array([[picture.shape[1], picture.shape[0]]], np.int64)
        yield {images: prepare(picture, preprocessing)[None].numpy(), sizes: size_wh}


def _judge(
    settings: ExportSettings, folder: Path, reference: TorchDetector, notes: dict[str, Any]
) -> Report:
    """Compare the files and note the verdict among them."""
    pictures = pictures_to_compare(settings)
    agreement = None
    if pictures:
        limits = LIMITS[notes["precision"]]
        agreement = compare(reference, OpenVINODetector(folder), pictures, limits)
    facts = {
        "model": settings.model,
        "format": settings.format,
        "precision": notes["precision"],
        "floats": notes["floats"],
        "openvino": notes["openvino"],
        "rtdetr": __version__,
    }
    report = Report(facts, agreement, pictures.origin if pictures else None)
    write_notes(folder, {**notes, "verdict": report.verdict})
    return report


def _output_path(settings: ExportSettings) -> Path:
    """`best_openvino_model` beside the weights; for an architecture in this folder.

    Raises:
        UsageError: `output` has another ending.
    """
    if settings.output is not None:
        path = Path(settings.output).expanduser()
        if not path.name.endswith(FOLDER):
            raise UsageError(f"output={settings.output} must end in {FOLDER}")
        return path
    is_architecture = Path(settings.model).suffix in YAML_SUFFIXES
    model = Path(Path(settings.model).name) if is_architecture else resolve_weights(settings.model)
    kind = f"{'_int8' if settings.int8 else ''}{'_half' if settings.half else ''}"
    return model.with_name(f"{model.stem}{kind}{FOLDER}")


def _print(settings: ExportSettings, path: Path, report: Report, report_path: Path) -> None:
    """What was written and how it compares, on stdout."""
    values = report.to_dict(path)
    if report.agreement is None:
        warn("verify=false: the files were not compared with PyTorch, and their metadata says so")
    else:
        warn_if_unsure(report.agreement)
    if settings.json:
        result(json.dumps(values))
        return
    floats = {"f32": "float32", "bf16": "bf16"}[values["floats"]]
    kind = f"int8 and {floats}" if values["precision"] == "int8" else floats
    result(f"{path}: OpenVINO {version()}, {kind}, {values['megabytes']:.1f} MB")
    if report.agreement:
        result(f"passed: {report.agreement}")
    say(f"report in {report_path}")
