"""Export to ONNX: write the graph, compare it with PyTorch, set a file aside if it differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rtdetr_cli.backends.onnx.detector import OnnxDetector
from rtdetr_cli.backends.onnx.graph import GraphOptions
from rtdetr_cli.backends.onnx.half import halve_file
from rtdetr_cli.backends.onnx.half_on_cpu import RoundingDetector
from rtdetr_cli.backends.onnx.sampling import used_sampler
from rtdetr_cli.backends.onnx.writer import note_verdict, write_onnx
from rtdetr_cli.backends.torch import TorchDetector
from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.core.console import say, warn
from rtdetr_cli.core.errors import BackendError, UsageError
from rtdetr_cli.core.files import atomic_write
from rtdetr_cli.core.version import VERSION
from rtdetr_cli.engine.exporting.int8 import quantize_file
from rtdetr_cli.engine.exporting.report import PRECISION, Report, print_report
from rtdetr_cli.engine.exporting.request import (
    images_to_compare,
    open_weights_to_export,
    output_path,
)
from rtdetr_cli.engine.exporting.verdict import LIMITS, compare
from rtdetr_cli.nn.rtdetr import RTDETRNetwork


def export_onnx(settings: ExportSettings) -> Path:
    """Write an ONNX file and its report.

    Args:
        settings: every key of `rtdetr export`.

    Raises:
        UsageError: the model is not a checkpoint, or the output has the wrong suffix.
        BackendError: a package is missing, or the outputs differ from PyTorch's; the file is then
            kept as `<name>.failed.onnx` with `<name>.failed.report.json`.
    """
    path, report = trace_and_compare(settings)
    print_report(settings, path, report)
    return path


def trace_and_compare(settings: ExportSettings) -> tuple[Path, Report]:
    """Write an ONNX file and compare it with PyTorch; the caller writes the report."""
    device = settings.device or "cpu"
    detector, preprocessing = open_weights_to_export(settings)
    path = output_path(settings)
    images = images_to_compare(settings)
    say(f"{detector.description}; tracing takes a minute")
    network, names = detector.network, detector.names
    reference = TorchDetector(network, names, preprocessing, detector.device, fused=False)
    options = _graph_options(settings, network)
    agreement = None
    with atomic_write(path) as temporary:
        facts_of = (detector.licence, detector.calibration)
        nodes = write_onnx(temporary, network, names, preprocessing, options, *facts_of)
        if settings.half:
            nodes = halve_file(temporary)
        facts = _facts(settings, nodes) | {"sampler": used_sampler(network, options.sampler)}
        if images and settings.int8:
            agreement, more = quantize_file(temporary, reference, images, settings)
            facts |= more
        elif images:
            rounds = settings.half and device == "cpu"
            written = (RoundingDetector if rounds else OnnxDetector)(temporary, device)
            agreement = compare(reference, written, images, LIMITS[facts["precision"]])
            facts |= _magnitudes(written)
        report = Report(facts, agreement, images.origin if images else None)
        note_verdict(temporary, report.verdict)
        set_aside_if_wrong(report, temporary, path)
    return path, report


def _graph_options(settings: ExportSettings, network: RTDETRNetwork) -> GraphOptions:
    """Form of the graph around the network.

    Raises:
        UsageError: a sampler that the network does not support.
    """
    if settings.sampler and used_sampler(network, settings.sampler) != settings.sampler:
        raise UsageError(
            f"sampler={settings.sampler}: {network.config.name} samples whole pixels, which needs "
            "sampler=gather"
        )
    return GraphOptions(
        opset=settings.opset,
        sampler=settings.sampler or "grid_sample",
        dynamic=settings.dynamic,
        postprocess=settings.postprocess,
        input=settings.input,
        batch=settings.batch if isinstance(settings.batch, int) else None,
    )


def set_aside_if_wrong(report: Report, written: Path, path: Path) -> None:
    """Rename a file whose outputs differ from PyTorch's to `<name>.failed.onnx`.

    Raises:
        BackendError: they differ; `path` is not written.
    """
    if report.agreement and not report.agreement.passes:
        failed = written.replace(path.with_suffix(f".failed{path.suffix}"))
        place = report.write(failed)
        raise BackendError(
            f"outputs differ from PyTorch: {'; '.join(report.agreement.faults)}; file kept as "
            f"{failed}, numbers in {place.name}"
        )


def _magnitudes(written: OnnxDetector) -> dict[str, Any]:
    """The largest float16 value and its node, and the overflows, which are also warned of."""
    if not isinstance(written, RoundingDetector):
        return {}
    largest, infinite = written.magnitudes[0], written.overflows
    if infinite:
        warn(
            f"float16 overflows (largest value 65504) in {', '.join(one.node for one in infinite)}"
        )
    return {"largest_float16": largest._asdict(), "overflows": [one._asdict() for one in infinite]}


def _facts(settings: ExportSettings, nodes: int) -> dict[str, Any]:
    return {
        "model": settings.model,
        "format": settings.format,
        "precision": _precision(settings),
        "opset": settings.opset,
        "nodes": nodes,
        "rtdetr": VERSION,
    }


def _precision(settings: ExportSettings) -> str:
    """Precision of the file, a key of LIMITS."""
    if settings.half:
        return "fp16"
    return "int8" if settings.int8 else PRECISION
