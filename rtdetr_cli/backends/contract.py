"""Inputs and outputs of RT-DETR graphs, recognised from names, types and shapes.

A contract also decodes the outputs of a graph into Detections; graph_detector.py runs it. Legend:
B batch, Q queries, K classes, R rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rtdetr_cli.backends.notes import check_size, names_by_index
from rtdetr_cli.backends.ranking import best_first, in_pixels, rank_scores, sigmoid
from rtdetr_cli.core.bounded_text import parse_literal
from rtdetr_cli.core.coco_classes import COCO_NAMES
from rtdetr_cli.core.detections import Detections, Selection
from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.weights.plausible import MAX_COUNT

INPUTS = {"images": "tensor(float)", "orig_target_sizes": "tensor(int64)"}
OUTPUTS = {"labels": "tensor(int64)", "boxes": "tensor(float)", "scores": "tensor(float)"}
RAW_OUTPUTS = {"logits": "tensor(float)", "boxes": "tensor(float)"}
"""With `rtdetr export postprocess=false`, which has no second input."""
TOP_PAIRS = 300
"""Detections per image with post-processing; num_top_queries of RTDETRPostProcessor."""
DEFAULT_SIZE_HW = (640, 640)
"""If height and width are free and the metadata has no size; all RT-DETRs train at 640."""
_FLOAT, _BYTES = "tensor(float)", "tensor(uint8)"
_SIX = 6
_HEAD = "RTDETRDecoder"
_MAX_FRACTION = 4.0
"""Normalised coordinates stay near 1; almost all coordinates in pixels are larger."""
_IN_PIXELS = (
    "its boxes are in pixels, as in YOLO's end-to-end exports, which also pad the image; "
    "RT-DETR's boxes are fractions of a stretched image"
)


@dataclass(frozen=True)
class Value:
    """An input or an output of a graph, as ONNX Runtime describes it."""

    name: str
    type: str
    shape: list[int | str | None]


Array: TypeAlias = "NDArray[Any]"
Decode = Callable[[Sequence[Array], list[tuple[int, int]], Selection, int], list[Detections]]
"""From outputs of the graph, (height, width) of the images, selection and max_det to detections.

Graphs that have ranked the pairs themselves return all their rows.
"""


@dataclass(frozen=True)
class Contract:
    """Inputs and outputs of a graph.

    Attributes:
        family: origin of the contract, for messages.
        image: name of the input for images, RGB and stretched: (B, 3, H, W) float32 in 0..1.
        sizes: name of the input for (width, height) of the originals, or None.
        outputs: names in the order in which `decode` reads them.
        batch: fixed batch size, None if free.
        size_hw: height and width of the input.
        size_is_free: whether the graph takes other sizes as well.
        num_classes: None if the shapes do not determine it.
        antialias: how the family shrinks images: True as Pillow does, False as OpenCV.
        decode: outputs to Detections.
        takes_bytes: whether images are (B, H, W, 3) uint8 instead.
    """

    family: str
    image: str
    sizes: str | None
    outputs: tuple[str, ...]
    batch: int | None
    size_hw: tuple[int, int]
    size_is_free: bool
    num_classes: int | None
    antialias: bool
    decode: Decode
    takes_bytes: bool = False

    def expected_shapes(self, outputs: Sequence[Array], batch: int) -> list[tuple[int, ...]]:
        """Consistent shapes of all outputs, given the number of rows in the first."""
        _, count, columns, *_ = (*outputs[0].shape, 1, 1, 1)
        rows = (batch, count)
        if len(self.outputs) == len(OUTPUTS):
            return [rows, (*rows, 4), rows]
        if len(self.outputs) == 1:
            return [(*rows, max(columns, 5))]  # a box and one score
        return [(*rows, self.num_classes or max(columns, 1)), (*rows, 4)]

    def to_input(self, images: Array) -> Array:
        """Convert (B, 3, H, W) float32 in 0..1 to the input of the graph."""
        if not self.takes_bytes:
            return images
        levels = (images * 255).round().astype(np.uint8)
        return np.ascontiguousarray(levels.transpose(0, 2, 3, 1))


def recognise(
    inputs: Sequence[Value], outputs: Sequence[Value], texts: Mapping[str, str], name: str
) -> Contract:
    """Find the contract of a graph.

    Args:
        inputs: of the graph.
        outputs: of the graph.
        texts: metadata of the file, as stored.
        name: of the file, for messages.

    Raises:
        WeightsError: the contract is unknown, or a size is out of range.
    """
    found = (
        _ours(inputs, outputs, texts)
        or _official(inputs, outputs)
        or _hugging_face(inputs, outputs)
        or _ultralytics(inputs, outputs, texts)
    )
    if found:
        _check_limits(found, name)
        return found
    takes, gives = (", ".join(f"{v.name} {v.type}{v.shape}" for v in s) for s in (inputs, outputs))
    raise WeightsError(
        f"{name} has inputs {takes} and outputs {gives}; supported are the official export (images "
        "with fixed sides, orig_target_sizes int64 -> labels, boxes, scores), Ultralytics' RT-DETR "
        "(images -> output0 [batch, queries, 6 or 4 + classes]) and Hugging Face (pixel_values -> "
        "logits, pred_boxes)"
    )


def _check_limits(contract: Contract, name: str) -> None:
    """Check input size, batch and number of classes.

    Raises:
        WeightsError: one of them is implausible.
    """
    check_size(contract.size_hw, contract.batch, name)
    if contract.num_classes is not None and not 1 <= contract.num_classes <= MAX_COUNT:
        raise WeightsError(f"{name} has {contract.num_classes} classes; 1 to {MAX_COUNT} are valid")


def read_names(
    contract: Contract, texts: Mapping[str, str], own: dict[int, str] | None
) -> tuple[dict[int, str], str]:
    """Class names and, for messages, where they come from.

    Args:
        contract: of the graph.
        texts: metadata of the file, as stored; Ultralytics writes Python literals, others JSON.
        own: names that `rtdetr export` wrote; None in third-party files.
    """
    names = own or _parse_names(texts.get("names"))
    if names and contract.num_classes in {None, len(names)}:
        return names, "from the file"
    if contract.num_classes in {None, len(COCO_NAMES)}:
        return dict(COCO_NAMES), "COCO's (the file has none)"
    return {n: str(n) for n in range(contract.num_classes or 0)}, "numbers (the file has none)"


def _parse_names(text: str | None) -> dict[int, str] | None:
    """Class names by index; None if the text is not a valid list or mapping."""
    try:
        value = (
            parse_literal(text) if text else None
        )  # JSON objects of strings are Python literals too
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return names_by_index(value)


def _ours(
    inputs: Sequence[Value], outputs: Sequence[Value], texts: Mapping[str, str]
) -> Contract | None:
    """`rtdetr export` with uint8 images, with free sides, or without post-processing."""
    types = _types(inputs)
    takes_bytes = types.get("images") == _BYTES
    wanted = {**INPUTS, "images": _BYTES if takes_bytes else _FLOAT}
    is_raw = _types(outputs) == RAW_OUTPUTS and types == {"images": wanted["images"]}
    is_whole = _types(outputs) == OUTPUTS and types == wanted
    if "rtdetr_format" not in texts or not (is_raw or is_whole):
        return None
    image, names = inputs[list(types).index("images")], [value.name for value in outputs]
    if len(image.shape) != 4:
        return None
    sides = image.shape[1:3] if takes_bytes else image.shape[2:]
    fixed = [side for side in sides if isinstance(side, int)]
    batch = image.shape[0]
    return Contract(
        family="rtdetr export",
        image="images",
        sizes=None if is_raw else "orig_target_sizes",
        outputs=tuple(names),
        batch=batch if isinstance(batch, int) else None,
        size_hw=(fixed[0], fixed[1]) if len(fixed) == len(sides) else DEFAULT_SIZE_HW,
        size_is_free=len(fixed) < len(sides),
        num_classes=None,
        antialias=True,
        decode=_decode_logits if is_raw else _decode_official,
        takes_bytes=takes_bytes,
    )


def _types(side: Sequence[Value]) -> dict[str, str]:
    return {value.name: value.type for value in side}


def _official(inputs: Sequence[Value], outputs: Sequence[Value]) -> Contract | None:
    """lyuwenyu/RT-DETR, D-FINE, DEIM, and `rtdetr export` with its defaults."""
    if (_types(inputs), _types(outputs)) != (INPUTS, OUTPUTS):
        return None
    values = {value.name: value for value in inputs}
    image = values["images"]
    size_hw = _fixed_size(image)
    if size_hw is None:  # their anchors are constants for one size
        return None
    batches = (image.shape[0], *values["orig_target_sizes"].shape[:1])
    return Contract(
        family="the official contract",
        image="images",
        sizes="orig_target_sizes",
        outputs=tuple(OUTPUTS),
        batch=min((batch for batch in batches if isinstance(batch, int)), default=None),
        size_hw=size_hw,
        size_is_free=False,
        num_classes=None,
        antialias=True,
        decode=_decode_official,
    )


def _hugging_face(inputs: Sequence[Value], outputs: Sequence[Value]) -> Contract | None:
    """RT-DETR, RT-DETRv2 and D-FINE of transformers; further outputs are ignored.

    A second input (`pixel_mask`) means DETR, whose classes include "no object".
    """
    given = {value.name: value for value in outputs}
    if [value.name for value in inputs] != ["pixel_values"] or not _takes_images(inputs[0]):
        return None
    if not {"logits", "pred_boxes"} <= given.keys():
        return None
    logits, boxes = given["logits"], given["pred_boxes"]
    if len(logits.shape) != 3 or boxes.shape[2:] != [4] or logits.type != _FLOAT:
        return None
    return _plain("Hugging Face", inputs[0], (logits.name, boxes.name), logits.shape[2], True)


def _ultralytics(
    inputs: Sequence[Value], outputs: Sequence[Value], texts: Mapping[str, str]
) -> Contract | None:
    """Ultralytics' RT-DETR: per query [cx, cy, w, h] and K scores, or score and class.

    YOLO has [B, 4 + K, anchors] in pixels, or six columns in pixels, which only the values show;
    recent files name their head in the metadata.
    """
    if len(inputs) != 1 or [value.name for value in outputs] != ["output0"]:
        return None
    image, output = inputs[0], outputs[0]
    if not _takes_images(image) or len(output.shape) != 3 or output.type != _FLOAT:
        return None
    names = _parse_names(texts.get("names"))
    num_classes = len(names) if names else None
    columns, head = output.shape[2], texts.get("head")
    if isinstance(columns, int):
        if head not in {None, _HEAD} or columns in {_anchors(image), *range(5)}:
            return None
        num_classes = num_classes if columns == _SIX else columns - 4
    elif head != _HEAD:  # graphs of free size name the columns "anchors"
        return None
    return _plain("Ultralytics", image, ("output0",), num_classes, False, _noted_size(texts))


def _anchors(image: Value) -> int:
    """Cells of the maps of strides 8, 16 and 32: the number of rows in YOLO."""
    height, width = _fixed_size(image) or (0, 0)
    return sum((height // stride) * (width // stride) for stride in (8, 16, 32))


def _plain(
    family: str,
    image: Value,
    outputs: tuple[str, ...],
    num_classes: int | str | None,
    antialias: bool,
    noted_size_hw: tuple[int, int] | None = None,
) -> Contract:
    """A contract whose boxes are normalised: the graph does not get the original sizes."""
    batch, size_hw = image.shape[0], _fixed_size(image)
    return Contract(
        family=family,
        image=image.name,
        sizes=None,
        outputs=outputs,
        batch=batch if isinstance(batch, int) else None,
        size_hw=size_hw or noted_size_hw or DEFAULT_SIZE_HW,
        size_is_free=size_hw is None,
        num_classes=num_classes if isinstance(num_classes, int) else None,
        antialias=antialias,
        decode=_decode_rows if len(outputs) == 1 else _decode_logits,
    )


def _takes_images(image: Value) -> bool:
    """Whether an input is (B, 3, H, W) float32; sides may be free."""
    shape = image.shape
    return (
        image.type == _FLOAT
        and len(shape) == 4
        and (shape[1] == 3 or not isinstance(shape[1], int))
    )


def _fixed_size(image: Value) -> tuple[int, int] | None:
    sides = [side for side in image.shape[2:] if isinstance(side, int)]
    return (sides[0], sides[1]) if len(sides) == len(image.shape[2:]) == 2 else None


def _noted_size(texts: Mapping[str, str]) -> tuple[int, int] | None:
    """Ultralytics' metadata `imgsz`, for example `[640, 640]`."""
    sides = texts.get("imgsz", "").strip("[]() ").split(",")
    numbers = [int(side) for side in sides if side.strip().isdecimal()]
    return (numbers[0], numbers[1]) if len(numbers) == len(sides) == 2 else None


def _decode_official(
    outputs: Sequence[Array], sizes_hw: list[tuple[int, int]], *_: object
) -> list[Detections]:
    """Labels (B, R), boxes (B, R, 4) xyxy in pixels and scores (B, R), best first."""
    labels, boxes, scores = outputs
    return [Detections(boxes[n], scores[n], labels[n]) for n in range(len(sizes_hw))]


def _decode_logits(
    outputs: Sequence[Array], sizes_hw: list[tuple[int, int]], selection: Selection, max_det: int
) -> list[Detections]:
    """Logits (B, Q, K) and boxes (B, Q, 4) cxcywh in 0..1."""
    logits, boxes = (output[: len(sizes_hw)] for output in outputs)
    return rank_scores(sigmoid(logits), boxes, sizes_hw, max_det, selection)


def _decode_rows(
    outputs: Sequence[Array], sizes_hw: list[tuple[int, int]], selection: Selection, max_det: int
) -> list[Detections]:
    """Rows (B, Q, 6) or (B, Q, 4 + K), cxcywh in 0..1 and scores after the sigmoid.

    Raises:
        WeightsError: the boxes are in pixels.
    """
    rows = outputs[0][: len(sizes_hw)]
    boxes = rows[..., :4]
    if ((boxes > _MAX_FRACTION) & np.isfinite(boxes)).any():
        raise WeightsError(f"the file cannot be read: {_IN_PIXELS}")
    if has_class_column(rows):
        return [_from_columns(row, size) for row, size in zip(rows, sizes_hw, strict=True)]
    return rank_scores(rows[..., 4:], boxes, sizes_hw, max_det, selection)


def has_class_column(rows: Array) -> bool:
    """Whether (B, Q, 6) rows end in score and class rather than in the scores of two classes.

    Classes are whole numbers; a sigmoid returns 0 or 1 only by rounding, and not for all queries.
    """
    if rows.shape[2] != _SIX:
        return False
    last = rows[..., 5]
    return bool((last == last.round()).all())


def _from_columns(rows: Array, size_hw: tuple[int, int]) -> Detections:
    """(Q, 6): cxcywh in 0..1, score, class; best first."""
    rows = rows[best_first(rows[:, 4], len(rows))]
    return Detections(in_pixels(rows[:, :4], size_hw), rows[:, 4], rows[:, 5].astype(np.int64))
