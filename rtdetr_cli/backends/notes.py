"""Metadata of an exported file: one typed record for ONNX, OpenVINO and TensorRT.

The file may come from anyone, so every value is checked as it is read. In ONNX files each value is
a JSON text in `metadata_props`; OpenVINO and TensorRT keep one JSON file beside the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, TypeVar

from rtdetr_cli.config.fields import MAX_SIDE, FieldError, OneOf, Range, convert, field_types
from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.weights.calibration import Calibration, parse_calibration
from rtdetr_cli.weights.plausible import MAX_COUNT, class_names

T = TypeVar("T")
FORMAT_VERSION = 1
"""Value of the key `rtdetr_format`, which marks files written by `rtdetr export`."""
MAX_PIXELS = 2**27
"""Per batch, if the file fixes its size: 1.6 GB as float32, 327 images of 640x640."""
_FORMAT_KEY = "rtdetr_format"
_NULLABLE = {"batch"}
_Side = Annotated[int, Range(1, MAX_SIDE)]
_Count = Annotated[int, Range(1, MAX_COUNT)]


@dataclass(frozen=True)
class PreprocessingNotes:
    """How the graph expects images; None if not recorded."""

    size_hw: tuple[_Side, _Side] | None = None
    """Height and width of the input; with `dynamic`, the default."""
    antialias: bool | None = None
    """Whether images are shrunk with antialiasing, as Pillow does."""
    resize: Annotated[str, OneOf(("stretch",))] | None = None
    """The aspect ratio is not kept."""
    input: Annotated[str, OneOf(("RGB / 255", "RGB"))] | None = None
    """Channels and range: float32 in 0..1, or uint8."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Unknown keys, written back unchanged."""


@dataclass(frozen=True)
class ExportNotes:
    """Metadata of an exported file; a field is None if the file does not record it."""

    names: dict[int, str] | None = None
    """Class index, 0 to K - 1, to printable name."""
    preprocessing: PreprocessingNotes = PreprocessingNotes()
    architecture: dict[str, Any] | None = None
    """The model configuration, as in a model YAML."""
    decoder_layers: _Count | None = None
    """Decoder layers in the graph."""
    num_queries: _Count | None = None
    """Queries that the graph selects."""
    precision: Annotated[str, OneOf(("fp32", "fp16", "tf32", "bf16", "int8"))] | None = None
    """Lowest precision in the graph; selects the limits of the verdict."""
    sampler: str | None = None
    """Form of deformable sampling: `grid_sample` or `gather`."""
    dynamic: bool | None = None
    """Whether height and width of the input are free."""
    postprocess: bool | None = None
    """Whether the graph ends in labels, boxes and scores, not in logits."""
    batch: Annotated[int | tuple[int, int, int] | None, Range(1, MAX_COUNT)] = None
    """Fixed batch size, None if free; for an engine its smallest, tuned and largest batch."""
    licence: str | None = None
    """Of the weights: name, by whom and where it is stated."""
    calibration: Calibration | None = None
    """How to read the scores, and thresholds; None unless the weights had it."""
    verdict: str | None = None
    """`passed`, `failed`, or why the file was not compared with PyTorch."""
    floats: Annotated[str, OneOf(("f32", "bf16"))] | None = None
    """OpenVINO: type that floating-point operators run in."""
    openvino: str | None = None
    """Release of OpenVINO that wrote the file."""
    inputs: dict[str, str] | None = None
    """TensorRT: input name to ONNX type."""
    outputs: dict[str, str] | None = None
    """TensorRT: output name to ONNX type."""
    tensorrt: str | None = None
    """Release of TensorRT that built the engine."""
    gpu: str | None = None
    """Name of the GPU that the engine was built on."""
    compute_capability: str | None = None
    """Compute capability of that GPU, for example `9.0`."""
    version_compatible: bool | None = None
    """Whether later releases of TensorRT can load the engine."""
    hardware_compatible: bool | None = None
    """Whether other GPUs from Ampere on can run the engine."""
    plan_sha256: str | None = None
    """Checksum of the engine that these notes belong to."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Facts for the report, and keys of later versions; written back unchanged."""

    def to_dict(self) -> dict[str, Any]:
        """The keys and values to store, ready for JSON."""
        return {_FORMAT_KEY: FORMAT_VERSION, **_recorded(self)}


def _recorded(notes: ExportNotes | PreprocessingNotes) -> dict[str, Any]:
    """Values by key, in the order of the fields, then `extra`."""
    values = {key: value for key, value in vars(notes).items() if key != "extra"}
    if isinstance(notes, ExportNotes):
        values["preprocessing"] = _recorded(notes.preprocessing) or None
        values["calibration"] = notes.calibration and notes.calibration.to_dict()
    known = {key: value for key, value in values.items() if value is not None or key in _NULLABLE}
    return {**known, **notes.extra}


def check_format(version: object, origin: str) -> None:
    """Check the value of `rtdetr_format`; ONNX files store it as a text.

    Raises:
        WeightsError: another version of this toolkit wrote the file.
    """
    if str(version) != str(FORMAT_VERSION):
        raise WeightsError(
            f"{origin} has format version {version}; this rtdetr reads {FORMAT_VERSION}"
        )


def parse_notes(values: Mapping[str, Any], origin: str) -> ExportNotes:
    """Check the metadata that `rtdetr export` wrote.

    Args:
        values: decoded JSON; keys may be missing or unknown.
        origin: the file, for messages.

    Raises:
        WeightsError: a value has the wrong type or is out of range.
    """
    values = {key: value for key, value in values.items() if key != _FORMAT_KEY}
    calibration: Any = values.pop("calibration", None)
    try:
        nested: Any = convert("preprocessing", values.pop("preprocessing", {}), dict)
        preprocessing = PreprocessingNotes(**_typed(PreprocessingNotes, nested, "preprocessing."))
        notes = ExportNotes(preprocessing=preprocessing, **_typed(ExportNotes, values))
    except FieldError as error:
        raise WeightsError(f"{origin} has damaged metadata: {error}") from None
    if notes.names is None:
        return notes
    names = names_by_index(notes.names)
    if names is None:
        raise WeightsError(
            f"{origin} has damaged metadata: names must map the classes 0, 1, 2... to texts"
        )
    try:
        found = None if calibration is None else parse_calibration(calibration, len(names))
    except ValueError as error:
        raise WeightsError(f"{origin} has damaged metadata: {error}") from None
    return replace(notes, names=names, calibration=found)


def _typed(cls: type, values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Arguments of a notes class; unknown keys become `extra`."""
    hints = {key: hint for key, hint in field_types(cls).items() if key != "extra"}
    known = sorted(hints.keys() & values.keys())
    for key in known:
        if values[key] is None and key not in _NULLABLE:
            raise FieldError(f"{prefix}{key}", "must not be null")
    extra = {key: value for key, value in values.items() if key not in hints}
    typed = {key: convert(f"{prefix}{key}", values[key], hints[key]) for key in known}
    return {**typed, "extra": extra}


def required(value: T | None, key: str, origin: str) -> T:
    """A value that the caller cannot do without.

    Raises:
        WeightsError: the file does not record it.
    """
    if value is None:
        raise WeightsError(f"{origin} has no {key} in its metadata; export it again")
    return value


def names_by_index(value: object) -> dict[int, str] | None:
    """Printable class names by index; None unless they cover the classes 0, 1, 2... exactly.

    An index may be a text, as in JSON, and a name a number, as in a data set of digits.
    """
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or not 0 < len(value) <= MAX_COUNT:
        return None
    names: dict[object, object] = {}
    for index, name in value.items():
        is_index = isinstance(index, str) and len(index) < 8 and index.isdecimal()
        names[int(index) if is_index else index] = str(name) if _is_plain(name) else None
    return class_names(names)


def _is_plain(name: object) -> bool:
    return isinstance(name, str | float | bool) or (type(name) is int and abs(name) < 10**9)


def check_size(size_hw: tuple[int, int], batch: int | None, name: str) -> None:
    """Reject an implausible input size before any memory is allocated for it.

    Raises:
        WeightsError: a side, the batch or the number of pixels is out of range.
    """
    height, width = size_hw
    count = 1 if batch is None else batch
    is_sound = count >= 1 and all(1 <= side <= MAX_SIDE for side in size_hw)
    if not is_sound or count * height * width > MAX_PIXELS:
        shown = "" if batch is None else f" in batches of {batch}"
        raise WeightsError(
            f"{name} takes images of {height}x{width}{shown}; sides are 1 to {MAX_SIDE}, and "
            f"{MAX_PIXELS / 1e6:.0f} million pixels in a batch are the most"
        )
