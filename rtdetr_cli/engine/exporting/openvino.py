"""Export to OpenVINO: write a folder from the traced network and compare it with PyTorch.

A folder whose outputs differ gets another name; backends/openvino/ defines the format.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rtdetr_cli.backends.contract import INPUTS
from rtdetr_cli.backends.graph_detector import Feed
from rtdetr_cli.backends.notes import ExportNotes
from rtdetr_cli.backends.onnx.writer import write_onnx
from rtdetr_cli.backends.openvino.detector import (
    FOLDER,
    OpenVINODetector,
    folder_files,
    int8_blocks,
    write_notes,
    write_openvino,
)
from rtdetr_cli.backends.openvino.package import openvino_package, version
from rtdetr_cli.backends.torch import TorchDetector
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.core.console import result, result_json, say, warn
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.core.files import atomic_folder
from rtdetr_cli.core.status import counted
from rtdetr_cli.core.version import VERSION
from rtdetr_cli.engine.exporting.images import Images, find_calibration, prepare
from rtdetr_cli.engine.exporting.int8 import warn_if_all_float
from rtdetr_cli.engine.exporting.report import Report
from rtdetr_cli.engine.exporting.request import (
    images_to_compare,
    open_weights_to_export,
    output_path,
)
from rtdetr_cli.engine.exporting.verdict import (
    LIMITS,
    Agreement,
    compare,
    judge,
    run_detector,
    warn_if_other_classes,
    warn_if_unsure,
)


def export_openvino(settings: ExportSettings) -> Path:
    """Write a folder, and its report beside it.

    Args:
        settings: every key of `rtdetr export`.

    Returns:
        The folder.

    Raises:
        UsageError: the model is not a checkpoint, or the output has the wrong ending.
        BackendError: a package is missing, or the outputs differ from PyTorch's; the folder is
            then kept as `<name>_failed_openvino_model`.
    """
    path = output_path(settings)
    openvino_package()  # fail before tracing if it is missing
    detector, preprocessing = open_weights_to_export(settings)
    reference = TorchDetector(
        detector.network, detector.names, preprocessing, detector.device, fused=False
    )
    with TemporaryDirectory() as place:
        folder = Path(place) / path.name
        folder.mkdir()
        onnx_path = Path(place) / "model.onnx"
        say(f"{detector.description}; tracing takes a minute")
        write_onnx(
            onnx_path,
            reference.network,
            reference.names,
            preprocessing,
            licence=detector.licence,
            calibration=detector.calibration,
        )
        notes, agreement = _write_and_compare(settings, folder, onnx_path, reference)
        report = _report(settings, notes, agreement)
        write_notes(folder, replace(notes, verdict=report.verdict))
        if report.agreement and not report.agreement.passes:
            path = path.with_name(f"{path.name.removesuffix(FOLDER)}_failed{FOLDER}")
        with atomic_folder(path, folder_files(folder)) as final:
            shutil.copytree(folder, final, dirs_exist_ok=True)
    report_path = report.write(path)
    if report.agreement and not report.agreement.passes:
        raise BackendError(
            f"outputs differ from PyTorch: {'; '.join(report.agreement.faults)}; files kept in "
            f"{path}, numbers in {report_path.name}"
        )
    _print(settings, path, report, report_path)
    return path


class _Calibration:
    """Network inputs from real images, prepared as at inference; reads the files in each pass."""

    def __init__(self, images: Images, preprocessing: Preprocessing) -> None:
        self._images, self._preprocessing = images, preprocessing

    def __iter__(self) -> Iterator[Feed]:
        batch, sizes = INPUTS
        for index in range(len(self._images.sources)):
            (image,) = self._images.read(index, index + 1)
            size_wh = np.array([[image.shape[1], image.shape[0]]], np.int64)
            yield {batch: prepare(image, self._preprocessing)[None].numpy(), sizes: size_wh}


def _write_and_compare(
    settings: ExportSettings, folder: Path, onnx_path: Path, reference: TorchDetector
) -> tuple[ExportNotes, Agreement | None]:
    """Write the files and compare them; with int8, blocks stay float until the verdict passes."""
    images = images_to_compare(settings)
    if settings.int8:
        assert images  # ExportSettings rejects int8 without comparison
        return _quantize(settings, folder, onnx_path, reference, images)
    notes = write_openvino(folder, onnx_path, settings.half)
    if images is None:
        return notes, None
    limits = LIMITS["bf16" if settings.half else "fp32"]
    return notes, compare(reference, OpenVINODetector(folder), images, limits)


def _quantize(
    settings: ExportSettings,
    folder: Path,
    onnx_path: Path,
    reference: TorchDetector,
    images: Images,
) -> tuple[ExportNotes, Agreement]:
    """Quantize; blocks become float from the first on, whose rounding affects all later ones."""
    chosen = find_calibration(str(settings.data), images, settings.download)
    calibration = _Calibration(chosen, reference.preprocessing)
    expected = run_detector(reference, images, reference.preprocessing)
    warn_if_other_classes(reference, expected, images)
    limits = replace(LIMITS["int8"], ap=settings.int8_drop / 100)
    reasons: dict[str, str] = {}
    parts = int8_blocks(onnx_path)
    while True:
        say(
            f"calibrating on {counted(len(chosen.sources), 'image')} of {chosen.origin}; "
            "this takes minutes"
        )
        notes = write_openvino(folder, onnx_path, settings.half, calibration, reasons)
        found = run_detector(OpenVINODetector(folder), images, reference.preprocessing)
        agreement = judge(expected, found, limits)
        if agreement.passes or len(reasons) == len(parts):
            break
        block = parts[len(reasons)]
        reasons[block] = "; ".join(agreement.faults)
        say(f"{block} stays float: {reasons[block]}")
    warn_if_all_float(reasons, parts)
    facts = {
        "calibration": chosen.origin,
        "calibration_images": len(chosen.sources),
        "float": {"decoder": "always", **reasons},
    }
    return replace(notes, extra={**notes.extra, **facts}), agreement


def _report(settings: ExportSettings, notes: ExportNotes, agreement: Agreement | None) -> Report:
    facts = {"model": settings.model, "format": settings.format, "rtdetr": VERSION}
    reported = {"precision", "floats", "openvino", "calibration", "calibration_images", "float"}
    facts |= {key: value for key, value in notes.to_dict().items() if key in reported}
    origin = settings.data or Images(()).origin
    return Report(facts, agreement, origin if agreement else None)


def _print(settings: ExportSettings, path: Path, report: Report, report_path: Path) -> None:
    """Print a summary of the files and the comparison on stdout."""
    values = report.to_dict(path)
    if report.agreement is None:
        warn("verify=false: the files were not compared with PyTorch; their metadata records this")
    else:
        warn_if_unsure(report.agreement)
    if settings.json:
        result_json(json.dumps(values))
        return
    floats = {"f32": "float32", "bf16": "bf16"}[values["floats"]]
    kind = f"int8 and {floats}" if values["precision"] == "int8" else floats
    result(f"{path}: OpenVINO {version()}, {kind}, {values['megabytes']:.1f} MB")
    if report.agreement:
        result(f"passed: {report.agreement}")
    say(f"report in {report_path}")
