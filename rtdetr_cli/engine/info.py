"""`rtdetr info`: describe a model and the cost of each decoder depth."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from rtdetr_cli.backends.notes import ExportNotes, required
from rtdetr_cli.backends.onnx.detector import OnnxDetector
from rtdetr_cli.backends.openvino.detector import OpenVINODetector, graph_file, read_notes_beside
from rtdetr_cli.backends.tensorrt.detector import notes_file, read_notes
from rtdetr_cli.backends.torch import check_network
from rtdetr_cli.config.load import load_model_config, model_config_from_dict
from rtdetr_cli.config.model import ModelConfig, Preprocessing
from rtdetr_cli.config.model_path import is_architecture, is_exported
from rtdetr_cli.config.scale import check_activations
from rtdetr_cli.config.settings.modes import InfoSettings, size_hw
from rtdetr_cli.core.coco_classes import COCO_NAMES
from rtdetr_cli.core.console import result, result_json, table
from rtdetr_cli.core.errors import ConfigError, UsageError, WeightsError, printable
from rtdetr_cli.core.files import sha256
from rtdetr_cli.evaluation.speed import count_flops, count_parameters
from rtdetr_cli.nn.rtdetr import RTDETRNetwork, fuse
from rtdetr_cli.weights.calibration import Calibration
from rtdetr_cli.weights.checkpoint import Checkpoint
from rtdetr_cli.weights.licence import CODE, MAX_LINE
from rtdetr_cli.weights.reader import open_weights
from rtdetr_cli.weights.store import resolve_weights

PAPER_AP = {
    "rtdetr-r18": {2: 45.5, 3: 46.5},
    "rtdetr-r34": {2: 47.4, 3: 48.5, 4: 48.9},
    "rtdetr-r50m": {2: 50.3, 3: 51.3, 4: 51.8, 5: 52.1, 6: 52.2},
    "rtdetr-r50": {1: 49.1, 2: 51.3, 3: 52.4, 4: 52.7, 5: 53.0, 6: 53.1},
}
"""AP on COCO val2017 by decoder layers in use, from RT-DETR (arXiv 2304.08069)."""


@dataclass(frozen=True)
class Depth:
    """Cost and accuracy of one decoder depth."""

    decoder_layers: int
    gflops: float
    paper_ap: float | None
    """Of the official COCO weights, if the paper reports it."""


@dataclass(frozen=True)
class FileInfo:
    """The file and what it records about its weights."""

    sha256: str
    """64 hexadecimal digits."""
    size_bytes: int
    licence: str | None = None
    """Of the weights, with its source, as the file records it; most families record none."""
    weights_from: str | None = None
    """Location of the weights in the file: `ema.module`, `model`..."""
    is_averaged: bool | None = None
    """Whether they are a running average (EMA); None if unknown."""
    calibration: Calibration | None = None
    """For `predict conf=auto`; None unless the file records one."""
    notes: tuple[str, ...] = ()
    """What was dropped, renamed or filled in on reading."""


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """Properties of a model. A multiply-accumulate counts as 2 FLOPs."""

    model: str
    origin: str
    """The family of the weights."""
    architecture: str | None = None
    """None in third-party exports, which do not record it; then nothing is counted either."""
    size_hw: tuple[int, int]
    """Height and width for the GFLOPs."""
    names: dict[int, str]
    decoder_layers: int | None = None
    """Those that run."""
    num_queries: int | None = None
    norm_eps: float | None = None
    parameters: int | None = None
    """In training form, frozen ones included."""
    parameters_fused: int | None = None
    """With norms and RepVGG blocks fused, as the model runs."""
    gflops: float | None = None
    """In training form at the depth in use, as in papers."""
    gflops_fused: float | None = None
    depths: tuple[Depth, ...] = ()
    file: FileInfo | None = None
    """None for an architecture."""


@dataclass(frozen=True)
class _Opened:
    """Properties common to all kinds of files."""

    origin: str
    names: dict[int, str]
    preprocessing: Preprocessing
    config: ModelConfig | None
    decoder_layers: int | None = None
    num_queries: int | None = None
    file: FileInfo | None = None
    size_is_fixed: bool = False


def info(settings: InfoSettings) -> ModelInfo:
    """Describe an architecture, a checkpoint or an exported file, and print it.

    Raises:
        WeightsError: the file is absent, damaged or foreign, or its tensors are not those of its
            network.
        UsageError: `imgsz` for an exported file, whose size is fixed.
    """
    found = describe_model(settings)
    if settings.json:
        result_json(json.dumps(asdict(found), ensure_ascii=False))
    else:
        _print(found)
    return found


def describe_model(settings: InfoSettings) -> ModelInfo:
    """The same without printing."""
    opened = _open(settings.model, settings.family)
    if settings.imgsz is not None and opened.size_is_fixed:
        raise UsageError(f"imgsz has no effect on {settings.model}: its size is fixed")
    size = opened.preprocessing.size_hw if settings.imgsz is None else size_hw(settings.imgsz)
    return _measure(settings.model, opened, size)


def _open(model: str, family: str | None) -> _Opened:
    if is_architecture(model):
        config = load_model_config(model)
        own = Preprocessing(config.size_hw)
        return _Opened("architecture without weights", dict(COCO_NAMES), own, config)
    suffix = Path(model).suffix.lower()
    if suffix == ".onnx":
        return _open_export(resolve_weights(model))
    if suffix == ".engine":
        return _open_engine(resolve_weights(model))
    if is_exported(model):
        return _open_openvino(resolve_weights(model))
    path = resolve_weights(model)
    checkpoint = open_weights(path, family=family)
    check_network(checkpoint, path.name)
    return _Opened(
        checkpoint.origin,
        checkpoint.names,
        checkpoint.preprocessing,
        checkpoint.config,
        file=_weights_file(path, checkpoint),
    )


def _open_export(path: Path) -> _Opened:
    detector = OnnxDetector(path, "cpu")
    file = FileInfo(sha256(path), path.stat().st_size)
    if detector.notes is None:
        return _third_party(detector, file)
    return _from_notes(detector.notes, path, file)


def _open_openvino(path: Path) -> _Opened:
    """Read the notes beside the graph; only without them OpenVINO opens it."""
    weights = graph_file(path).with_suffix(".bin")
    notes = read_notes_beside(weights)[0]
    if notes is None:
        file = FileInfo(sha256(weights), weights.stat().st_size)
        return _third_party(OpenVINODetector(path), file)
    precision = required(notes.precision, "precision", path.name)
    floats = required(notes.floats, "floats", path.name)
    release = required(notes.openvino, "openvino", path.name)
    kinds = dict.fromkeys((precision, floats))
    shown = (f"OpenVINO {release}, {' and '.join(kinds)}", f"verdict: {notes.verdict}")
    file = FileInfo(sha256(weights), weights.stat().st_size, notes=shown)
    return _from_notes(notes, path, file)


def _third_party(detector: OnnxDetector | OpenVINODetector, file: FileInfo) -> _Opened:
    origin = "third-party export"
    return _Opened(
        origin, detector.names, detector.preprocessing, None, file=file, size_is_fixed=True
    )


def _open_engine(path: Path) -> _Opened:
    """Read the notes beside an engine; needs neither TensorRT nor a GPU."""
    notes = read_notes(path, path.read_bytes())
    if notes is None:
        raise WeightsError(
            f"{path.name} cannot be described without its notes, {notes_file(path).name}"
        )
    origin = notes_file(path).name
    release = required(notes.tensorrt, "tensorrt", origin)
    gpu, verdict = required(notes.gpu, "gpu", origin), required(notes.verdict, "verdict", origin)
    if not isinstance(notes.batch, tuple):
        raise WeightsError(f"{notes_file(path).name}: batch must be smallest, usual and largest")
    least, tuned, most = notes.batch
    shown = (
        f"TensorRT {release} on {gpu}",
        f"{least} to {most} images, tuned for {tuned}",
        f"verdict: {verdict}",
    )
    file = FileInfo(sha256(path), path.stat().st_size, notes=shown)
    return _from_notes(notes, path, file)


def _from_notes(notes: ExportNotes, path: Path, file: FileInfo) -> _Opened:
    """A file that `rtdetr export` wrote.

    Raises:
        WeightsError: its notes are incomplete or wrong.
    """
    own = notes.preprocessing
    names = required(notes.names, "names", path.name)
    architecture = required(notes.architecture, "architecture", path.name)
    preprocessing = Preprocessing(
        required(own.size_hw, "preprocessing.size_hw", path.name),
        required(own.antialias, "preprocessing.antialias", path.name),
    )
    try:
        config = model_config_from_dict(architecture, path.name)
    except ConfigError as error:
        raise WeightsError(str(error)) from None
    return _Opened(
        origin="rtdetr export",
        names=names,
        preprocessing=preprocessing,
        config=config,
        decoder_layers=required(notes.decoder_layers, "decoder_layers", path.name),
        num_queries=required(notes.num_queries, "num_queries", path.name),
        file=replace(
            file,
            licence=notes.licence and printable(notes.licence, MAX_LINE),
            calibration=notes.calibration,
        ),
        size_is_fixed=not notes.dynamic,
    )


def _weights_file(path: Path, checkpoint: Checkpoint) -> FileInfo:
    path = path / "model.safetensors" if path.is_dir() else path
    place = _after("weights taken from ", checkpoint.notes)
    is_ours = checkpoint.origin.startswith("rtdetr train")  # its checkpoints hold the average
    return FileInfo(
        sha256=sha256(path),
        size_bytes=path.stat().st_size,
        licence=checkpoint.licence or _after("license: ", checkpoint.notes),
        weights_from=place,
        is_averaged=True if is_ours or (place or "").startswith("ema") else None,
        calibration=checkpoint.calibration,
        notes=checkpoint.notes,
    )


def _after(start: str, notes: tuple[str, ...]) -> str | None:
    """The rest of the first note that starts with a prefix."""
    return next((note.removeprefix(start) for note in notes if note.startswith(start)), None)


def _measure(model: str, opened: _Opened, size: tuple[int, int]) -> ModelInfo:
    """Count on the meta device: shapes only, which is fast for any model."""
    config = opened.config
    if config is None:
        return ModelInfo(
            model=model, origin=opened.origin, size_hw=size, names=opened.names, file=opened.file
        )
    check_activations(config, size, Path(model).name)
    with torch.device("meta"):
        network = RTDETRNetwork(config, len(opened.names)).eval()
    network.set_speed(opened.decoder_layers, opened.num_queries)
    layers, queries = network.decoder.eval_layers, network.decoder.num_queries
    fused = fuse(network)
    gflops_fused = count_flops(fused, size) / 1e9
    total = config.decoder.num_layers
    first, last = (_gflops(network, depth, size) for depth in (1, total))
    per_layer = (last - first) / max(total - 1, 1)  # all layers cost the same
    known = PAPER_AP.get(config.name, {})
    depths = tuple(
        Depth(depth, first + (depth - 1) * per_layer, known.get(depth))
        for depth in range(1, total + 1)
    )
    return ModelInfo(
        model=model,
        origin=opened.origin,
        architecture=config.name,
        size_hw=size,
        names=opened.names,
        decoder_layers=layers,
        num_queries=queries,
        norm_eps=config.norm_eps,
        parameters=count_parameters(network),
        parameters_fused=count_parameters(fused),
        gflops=depths[layers - 1].gflops,
        gflops_fused=gflops_fused,
        depths=depths,
        file=opened.file,
    )


def _gflops(network: RTDETRNetwork, decoder_layers: int, size: tuple[int, int]) -> float:
    network.set_speed(decoder_layers)
    return count_flops(network, size) / 1e9


def _print(found: ModelInfo) -> None:
    height, width = found.size_hw
    shown = ", ".join(list(found.names.values())[:5]) + (", ..." if len(found.names) > 5 else "")
    rows = [
        ("model", found.model),
        ("family", found.origin),
        ("architecture", found.architecture or "not recorded in the file"),
        ("classes", f"{len(found.names)} ({shown})"),
        ("input", f"{height}x{width}"),
    ]
    if found.depths:
        rows += [
            ("parameters", f"{found.parameters:,} ({found.parameters_fused:,} fused)"),
            ("GFLOPs", f"{_rounded(found.gflops)} ({_rounded(found.gflops_fused)} fused)"),
            ("decoder layers", f"{found.decoder_layers} of {len(found.depths)} run"),
            ("queries", str(found.num_queries)),
            ("BatchNorm epsilon", f"{found.norm_eps:g}"),
        ]
    if found.file:
        rows += _file_rows(found.file)
    if found.file and found.file.calibration:
        rows += _calibration_rows(found.file.calibration, found.names)
    result(*(f"{name:<18} {value}" for name, value in rows))
    if found.depths:
        columns = ("decoder layers", "GFLOPs", "COCO AP in the paper")
        depths = ((d.decoder_layers, _rounded(d.gflops), d.paper_ap or "-") for d in found.depths)
        table("", columns, depths)


def _rounded(gflops: float | None) -> str:
    return "-" if gflops is None else f"{gflops:.{2 if gflops < 10 else 1}f}"


def _calibration_rows(given: Calibration, names: dict[int, str]) -> list[tuple[str, str]]:
    pairs = zip(names.values(), given.thresholds, strict=True)
    shown = [f"{name} {threshold:.3f}" for name, threshold in pairs]
    more = ", ..." if len(shown) > 5 else ""
    thresholds = ", ".join(shown[:5]) + more
    return [("calibration", given.describe()), ("conf=auto", thresholds)]


def _file_rows(file: FileInfo) -> list[tuple[str, str]]:
    average = {True: "yes", False: "no", None: "not recorded in the file"}[file.is_averaged]
    return [
        *(("licence, code", line) for line in CODE),
        ("licence, weights", file.licence or "not recorded in the file"),
        ("weights from", file.weights_from or "the whole file"),
        ("average (EMA)", average),
        ("size", f"{file.size_bytes:,} bytes"),
        ("sha256", file.sha256),
        *(("note", note) for note in file.notes),
    ]
