"""Adapt INT8 files to ONNX Runtime on a CPU, in memory: same values, other zero points.

The integer kernels for x86 take uint8. Maps keep their scale; the zero point is their lower bound,
0 for maps without negative values, which folds the bound into the convolution; maps without a bound
get 128. Unchanged, the INT8 graph of rtdetr-n is slower than float32; rewritten, it is faster
(docs/benchmarks.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rtdetr_cli.backends.onnx.int8 import LEVELS, largest_pairs

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

Array = npt.NDArray[Any]
_KEEP_BOUND = {
    *("AveragePool", "MaxPool", "Resize", "Concat", "Add", "Pad"),
    *("QuantizeLinear", "DequantizeLinear"),
}
"""Operators whose output has the lower bound of their inputs, if that is 0 or negative."""


def restated_for_cpu(path: Path) -> bytes | None:
    """The adapted content of a file by `quantize`; None for other files."""
    content = path.read_bytes() if path.is_file() else b""
    if b"QuantizeLinear" not in content or b"rtdetr_format" not in content:
        return None
    from google.protobuf.message import DecodeError
    from onnx import load_model_from_string

    try:
        model = load_model_from_string(content)
    except DecodeError:  # ONNX Runtime reports the fault
        return None
    restate_for_cpu(model)
    restated: bytes = model.SerializeToString()
    return restated


def restate_for_cpu(model: ModelProto) -> None:
    """Convert activations of a graph by `quantize` from int8 to uint8; weights stay int8.

    Values up to 127 scales are unchanged; maps with a lower bound clip at up to 255 scales instead.
    """
    from onnx import numpy_helper

    graph = model.graph
    values = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    bounds = _lower_bounds(graph, values)
    zeros = {
        node.input[2]: _zero_point(bounds.get(node.input[0]), float(values[node.input[1]]))
        for node in graph.node
        if node.op_type == "QuantizeLinear"
        and len(node.input) > 2
        and set(node.input[1:3]) <= set(values)
    }
    for constant in graph.initializer:
        if constant.name in zeros:
            value = np.array(zeros[constant.name], np.uint8)
            constant.CopyFrom(numpy_helper.from_array(value, constant.name))
    _round_before_bounds(graph, values)


def may_saturate(content: bytes) -> bool:
    """Whether the sum of two products with int8 weights can exceed 16 bits.

    Never in files by `quantize`; other files run with uint8 weights on x86 without VNNI, which is
    slower (docs/benchmarks.md).
    """
    from onnx import load_model_from_string, numpy_helper

    graph = load_model_from_string(content).graph
    weights = {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    int8 = [one for one in graph.initializer if one.name in weights and len(one.dims) == 4]
    return any(largest_pairs(numpy_helper.to_array(one)).max() > LEVELS + 1 for one in int8)


def _lower_bounds(graph: GraphProto, values: Mapping[str, Array]) -> dict[str, float]:
    """Bounds of at most 0, of tensors behind ReLU, Sigmoid or Clip."""
    found: dict[str, float] = {}
    for node in graph.node:
        lowest = _bound_of(node, found, values)
        if lowest is not None:
            found |= dict.fromkeys(node.output, min(lowest, 0.0))
    return found


def _bound_of(
    node: NodeProto, known: Mapping[str, float], values: Mapping[str, Array]
) -> float | None:
    if node.op_type in {"Relu", "Sigmoid"}:
        return 0.0
    if node.op_type == "Clip":
        return float(values[node.input[1]]) if node.input[1] in values else None
    maps = node.input if node.op_type in {"Concat", "Add"} else node.input[:1]
    if node.op_type not in _KEEP_BOUND or not set(maps) <= set(known):
        return None
    lowest = min(known[name] for name in maps)
    return None if lowest and node.op_type == "Add" else lowest


def _zero_point(bound: float | None, scale: float) -> int:
    return 128 if bound is None else min(128, round(-bound / scale))


def _round_before_bounds(graph: GraphProto, values: Mapping[str, Array]) -> None:
    """Move the rounding behind a Clip before it, so that its convolution runs on integers.

    Rounding keeps the order, so the results are equal. Where the zero point is the bound of the
    Clip, it has no effect then and is removed.
    """
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    for clip in [node for node in graph.node if node.op_type == "Clip"]:
        maker, after = makers.get(clip.input[0]), readers[clip.output[0]]
        is_lower = clip.input[1] in values and not any(clip.input[2:])
        is_alone = [one.op_type for one in after] == ["QuantizeLinear"]
        if not (is_lower and is_alone and maker and maker.op_type == "Conv"):
            continue
        if len(readers[clip.input[0]]) > 1:
            continue
        if float(values[clip.input[1]]) <= 0:
            after[0].input[0] = clip.input[0]
            graph.node.remove(clip)
        else:
            _insert_pair(graph, clip, after[0])


def _insert_pair(graph: GraphProto, clip: NodeProto, like: NodeProto) -> None:
    """Round the input of a node with the scale and zero point of another QuantizeLinear."""
    from onnx import helper

    given, low, back = (f"{clip.input[0]}{end}" for end in ("", "_int8", "_rounded"))
    scale, zero = like.input[1:3]
    place = list(graph.node).index(clip)
    pair = (("QuantizeLinear", given, low), ("DequantizeLinear", low, back))
    for kind, source, target in reversed(pair):
        name = f"{clip.name}/{kind.removesuffix('Linear')}Before"
        graph.node.insert(place, helper.make_node(kind, [source, scale, zero], [target], name))
    clip.input[0] = back
