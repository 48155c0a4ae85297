"""Export: writes a network for another runtime and compares the two before it says success.

The file gets its name only if it answers as PyTorch does; the formats stand in backends/.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetr_cli import __version__
from rtdetr_cli.backends.load import load_detector, preprocessing_for
from rtdetr_cli.backends.onnx.detector import OnnxDetector, note_verdict, write_onnx
from rtdetr_cli.backends.onnx.graph import GraphOptions
from rtdetr_cli.backends.onnx.half import halve_file
from rtdetr_cli.backends.onnx.half_on_cpu import RoundingDetector
from rtdetr_cli.backends.onnx.sampling import used_sampler
from rtdetr_cli.backends.openvino.detector import FOLDER
from rtdetr_cli.backends.tensorrt.detector import notes_file
from rtdetr_cli.backends.torch import TorchDetector
from rtdetr_cli.config.fields import YAML_SUFFIXES
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.core.console import result, result_json, say, warn
from rtdetr_cli.core.errors import BackendError, UsageError
from rtdetr_cli.core.files import atomic_write, user_path
from rtdetr_cli.engine.exporting.int8 import quantize_file
from rtdetr_cli.engine.exporting.verdict import (
    LIMITS,
    NUM_PICTURES,
    Agreement,
    Pictures,
    compare,
    find_pictures,
    warn_if_unsure,
)
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.store import resolve_weights

PRECISION = "fp32"
NUM_PICTURES_INT8 = 100
"""What stays float is decided by AP, of which few pictures say little."""
NOT_COMPARED = "not compared with PyTorch"


@dataclass(frozen=True)
class Report:
    """What was written and how it compares; `<name>.report.json` beside the file.

    Attributes:
        facts: the file: format, opset, nodes...
        agreement: None with verify=false.
        origin: of the pictures.
    """

    facts: dict[str, Any]
    agreement: Agreement | None
    origin: str | None

    @property
    def verdict(self) -> str:
        """What the file's own metadata says too."""
        if self.agreement is None:
            return NOT_COMPARED
        return "passed" if self.agreement.passes else "failed"

    def to_dict(self, path: Path) -> dict[str, Any]:
        """For the file at its last place."""
        compared = self.agreement.to_dict() if self.agreement else None
        facts = {"path": str(path), "megabytes": megabytes(path), **self.facts}
        return {**facts, "verdict": self.verdict, "pictures": self.origin, "agreement": compared}

    def write(self, path: Path) -> Path:
        """Write it beside the file at its last place."""
        place = report_file(path)
        with atomic_write(place) as temporary:
            temporary.write_text(json.dumps(self.to_dict(path), indent=2) + "\n")
        return place


def megabytes(path: Path) -> float:
    """Size of a file, or of the files in a folder."""
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files) / 1e6


def report_file(path: Path) -> Path:
    """`best.report.json` for `best.onnx`; an engine has one file for notes and report."""
    if path.suffix == ".engine":
        return notes_file(path)
    if path.name.endswith(FOLDER):
        return path.with_name(f"{path.name}.report.json")
    return path.with_suffix(".report.json")


def export(settings: ExportSettings) -> Path:
    """Write a file for another runtime.

    Args:
        settings: every key of `rtdetr export`.

    Returns:
        The file.

    Raises:
        UsageError: the model is no checkpoint, or the output has another suffix.
        BackendError: a package is missing, or the file does not answer as PyTorch does; it is
            then kept as `<name>.failed.onnx` with `<name>.failed.report.json`.
    """
    path = resolve_weights(settings.model) if settings.only_kit else _export(settings)
    if settings.kit:
        from rtdetr_cli.engine.exporting.kits import write_kit

        folder = write_kit(settings.kit, path)
        say(f"kit={settings.kit} in {folder}; README.md in it says how to run it")
    return path


def _export(settings: ExportSettings) -> Path:
    """The file alone, in the format that was asked for."""
    if settings.format == "engine":
        from rtdetr_cli.engine.exporting.tensorrt import export_engine  # it stands on this file

        return export_engine(settings)
    if settings.format == "openvino":
        from rtdetr_cli.engine.exporting.openvino import export_openvino  # so does it

        return export_openvino(settings)
    path, report = export_onnx(settings)
    print_report(settings, path, report)
    return path


def export_onnx(settings: ExportSettings) -> tuple[Path, Report]:
    """Write the ONNX file and compare it; the report is not written yet."""
    device = settings.device or "cpu"
    detector, preprocessing = open_weights_to_export(settings)
    path = output_path(settings)
    pictures = pictures_to_compare(settings)
    say(f"{detector.description}; tracing takes a minute")
    network, names = detector.network, detector.names
    reference = TorchDetector(network, names, preprocessing, detector.device, fused=False)
    options = _graph_options(settings, network)
    agreement = None
    with atomic_write(path) as temporary:
        nodes = write_onnx(temporary, network, names, preprocessing, options)
        if settings.half:
            nodes = halve_file(temporary)
        facts = _facts(settings, nodes) | {"sampler": used_sampler(network, options.sampler)}
        if pictures and settings.int8:
            agreement, more = quantize_file(temporary, reference, pictures, settings)
            facts |= more
        elif pictures:
            rounds = settings.half and device == "cpu"
            written = (RoundingDetector if rounds else OnnxDetector)(temporary, device)
            agreement = compare(reference, written, pictures, LIMITS[facts["precision"]])
            facts |= _magnitudes(written)
        report = Report(facts, agreement, pictures.origin if pictures else None)
        note_verdict(temporary, report.verdict)
        keep_apart_if_wrong(report, temporary, path)
    return path, report


def _graph_options(settings: ExportSettings, network: RTDETRNetwork) -> GraphOptions:
    """What is written beside the network.

    Raises:
        UsageError: a sampler for a network that has one only.
    """
    if settings.sampler and used_sampler(network, settings.sampler) != settings.sampler:
        raise UsageError(
            f"sampler={settings.sampler}: {network.config.name} samples whole pixels, which are "
            "gathered"
        )
    return GraphOptions(
        opset=settings.opset,
        sampler=settings.sampler or "grid_sample",
        dynamic=settings.dynamic,
        postprocess=settings.postprocess,
        input=settings.input,
        batch=settings.batch if isinstance(settings.batch, int) else None,
    )


def open_weights_to_export(settings: ExportSettings) -> tuple[TorchDetector, Preprocessing]:
    """The network at the speed, and the preprocessing at the size, that was asked for.

    Raises:
        UsageError: the model is no checkpoint.
    """
    device = settings.device or "cpu"
    detector = load_detector(settings.model, device, settings.decoder_layers, settings.num_queries)
    if not isinstance(detector, TorchDetector):
        raise UsageError(f"model={settings.model} is an exported file; give the weights (.pt)")
    return detector, preprocessing_for(detector, settings.imgsz)


def pictures_to_compare(settings: ExportSettings) -> Pictures | None:
    """What both are asked about; None with verify=false."""
    count = settings.verify_images or (NUM_PICTURES_INT8 if settings.int8 else NUM_PICTURES)
    return find_pictures(settings.data, count) if settings.verify else None


def keep_apart_if_wrong(report: Report, written: Path, path: Path) -> None:
    """Give a file that answers otherwise than PyTorch a name that nobody takes for a success.

    Raises:
        BackendError: it does; `path` is not written.
    """
    if report.agreement and not report.agreement.passes:
        failed = written.replace(path.with_suffix(f".failed{path.suffix}"))
        place = report.write(failed)
        raise BackendError(
            f"the file answers otherwise than PyTorch: {'; '.join(report.agreement.faults)}; it is "
            f"kept as {failed}, the numbers stand in {place.name}"
        )


def _magnitudes(written: OnnxDetector) -> dict[str, Any]:
    """The largest number in float16 and where, and what became infinite; it is warned of."""
    if not isinstance(written, RoundingDetector):
        return {}
    largest, infinite = written.magnitudes[0], written.overflows
    if infinite:
        warn(f"float16 ends at 65504 and overflows in {', '.join(one.node for one in infinite)}")
    return {"largest_float16": largest._asdict(), "overflows": [one._asdict() for one in infinite]}


def _facts(settings: ExportSettings, nodes: int) -> dict[str, Any]:
    return {
        "model": settings.model,
        "format": settings.format,
        "precision": _precision(settings),
        "opset": settings.opset,
        "nodes": nodes,
        "rtdetr": __version__,
    }


def _precision(settings: ExportSettings) -> str:
    """Its row in the limits of the verdict."""
    if settings.half:
        return "fp16"
    return "int8" if settings.int8 else PRECISION


def output_path(settings: ExportSettings) -> Path:
    """Beside the weights, for an architecture in this folder.

    `best.onnx`, `best_half.onnx`, `best_int8.engine`, `best_int8_half_openvino_model`.

    Raises:
        UsageError: `output` ends otherwise than the format.
    """
    ending = FOLDER if settings.format == "openvino" else f".{settings.format}"
    if settings.output is not None:
        path = user_path(settings.output)
        if not path.name.endswith(ending) or path.name == ending:
            raise UsageError(f"output={settings.output} must end in {ending}")
        return path
    is_architecture = Path(settings.model).suffix in YAML_SUFFIXES
    model = Path(Path(settings.model).name) if is_architecture else resolve_weights(settings.model)
    kinds = f"{'_int8' if settings.int8 else ''}{'_half' if settings.half else ''}"
    return model.with_name(f"{model.stem}{kinds}{ending}")


def print_report(settings: ExportSettings, path: Path, report: Report) -> None:
    """What was written and how it compares: on stdout, and beside the file."""
    place = report.write(path)
    values, agreement = report.to_dict(path), report.agreement
    if agreement is None:
        warn("verify=false: the file was not compared with PyTorch, and its metadata says so")
    else:
        warn_if_unsure(agreement)
    if settings.json:
        result_json(json.dumps(values))
        return
    result(
        f"{path}: opset {values['opset']}, {values['nodes']} nodes, {values['megabytes']:.1f} MB"
    )
    if agreement:
        result(f"passed: {agreement}")
    if largest := values.get("largest_float16"):
        result(f"largest float16: {largest['value']:.0f} of 65504, in {largest['node']}")
    if settings.int8:
        result(f"int8: {values['convolutions']} convolutions; float: {', '.join(values['float'])}")
    say(f"report in {place}")
