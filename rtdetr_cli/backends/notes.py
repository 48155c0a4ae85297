"""What an exported file says about itself, typed and within limits: it may be anyone's file.

contract.py, onnx.py, openvino.py and tensorrt.py read the texts and give the values to this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from rtdetr_cli.config.fields import MAX_SIDE, FieldError, OneOf, Range, convert
from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.weights.plausible import MAX_COUNT, class_names

MAX_PIXELS = 2**27
"""Of a batch whose size the file fixes: 1.6 GB as float32, 327 images of 640x640."""
_COUNT = Annotated[int, Range(1, MAX_COUNT)]
_SIDE = Annotated[int, Range(1, MAX_SIDE)]
_TYPES: dict[str, object] = {
    "architecture": dict,
    "preprocessing": dict,
    "names": dict,
    "decoder_layers": _COUNT,
    "num_queries": _COUNT,
    "precision": Annotated[str, OneOf(("fp32", "fp16", "tf32", "bf16", "int8"))],
    "floats": Annotated[str, OneOf(("f32", "bf16"))],
    "batch": Annotated[int | tuple[int, int, int] | None, Range(1, MAX_COUNT)],
    **dict.fromkeys(("dynamic", "postprocess", "version_compatible", "hardware_compatible"), bool),
    **dict.fromkeys(("sampler", "verdict", "openvino"), str),
    **dict.fromkeys(("tensorrt", "gpu", "compute_capability"), str),
}
_PREPROCESSING: dict[str, object] = {
    "size_hw": tuple[_SIDE, _SIDE],
    "antialias": bool,
    "resize": Annotated[str, OneOf(("stretch",))],
    "input": Annotated[str, OneOf(("RGB / 255", "RGB"))],
}


def checked_notes(notes: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """What `rtdetr export` noted, every known value of its type; class names by index.

    Args:
        notes: decoded; keys may be missing, and unknown ones stay as they are.
        origin: of the notes, for messages.

    Raises:
        WeightsError: a value has another type or is out of range.
    """
    try:
        checked = {**notes, **_typed(notes, _TYPES, "")}
        if "preprocessing" in notes:
            given = notes["preprocessing"]
            checked["preprocessing"] = {**given, **_typed(given, _PREPROCESSING, "preprocessing.")}
    except FieldError as error:
        raise WeightsError(f"{origin} has damaged metadata: {error}") from None
    if "names" in notes:
        checked["names"] = noted_names(notes["names"])
        if checked["names"] is None:
            raise WeightsError(
                f"{origin} has damaged metadata: names are no texts for the classes 0, 1, 2..."
            )
    return checked


def _typed(notes: Mapping[str, Any], types: Mapping[str, object], prefix: str) -> dict[str, Any]:
    known = types.keys() & notes.keys()
    return {key: convert(f"{prefix}{key}", notes[key], types[key]) for key in sorted(known)}


def noted_names(value: object) -> dict[int, str] | None:
    """Class names by index, printable; None unless they are names for the classes 0, 1, 2...

    Indices may be texts, as in JSON, and names numbers, as in a data set of digits.
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


def require_notes(notes: Mapping[str, Any], keys: tuple[str, ...], origin: str) -> None:
    """Check that notes have the keys that a reader needs; `preprocessing.size_hw` is a key in one.

    Raises:
        WeightsError: one is missing.
    """
    for key in keys:
        value: Any = notes
        for part in key.split("."):
            if part not in value:
                raise WeightsError(f"{origin} has no {key} in its metadata; export it again")
            value = value[part]


def check_size(size_hw: tuple[int, int], batch: int | None, name: str) -> None:
    """Refuse an input that no detector has, before memory is taken for it.

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
