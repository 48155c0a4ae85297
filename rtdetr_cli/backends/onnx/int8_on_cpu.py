"""INT8 for ONNX Runtime on a CPU: the same numbers with other zero points, in memory only.

On x86 its integer kernels want uint8. A map without negative values keeps its scale and gets 0 as
zero point, by which the runtime folds ReLU into the convolution; other maps get 128. As it stands
in the file the graph of rtdetr-n is slower than float32, restated it is faster
(docs/benchmarks.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rtdetr_cli.backends.onnx.int8 import LEVELS, largest_pairs

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

_KEEP_SIGN = {
    *("AveragePool", "MaxPool", "Resize", "Concat", "Add", "Pad"),
    *("QuantizeLinear", "DequantizeLinear"),
}
"""Operators whose result has no negative value where their inputs have none."""


def restated_for_cpu(path: Path) -> bytes | None:
    """A file by `quantize` as the CPU wants it; None for any other file."""
    content = path.read_bytes() if path.is_file() else b""
    if b"QuantizeLinear" not in content or b"rtdetr_format" not in content:
        return None
    from google.protobuf.message import DecodeError
    from onnx import load_model_from_string

    try:
        model = load_model_from_string(content)
    except DecodeError:  # ONNX Runtime says what is wrong
        return None
    restate_for_cpu(model)
    restated: bytes = model.SerializeToString()
    return restated


def restate_for_cpu(model: ModelProto) -> None:
    """Turn activations of a graph by `quantize` from int8 to uint8; weights stay int8.

    Values up to 127 scales are the same numbers as before; above, where int8 clips, maps without
    negative values go on to 255.
    """
    from onnx import numpy_helper

    positive = _without_negative_values(model.graph)
    zeros = {
        node.input[2]: 0 if node.input[0] in positive else 128
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and len(node.input) > 2
    }
    for constant in model.graph.initializer:
        if constant.name in zeros:
            value = np.array(zeros[constant.name], np.uint8)
            constant.CopyFrom(numpy_helper.from_array(value, constant.name))


def may_saturate(content: bytes) -> bool:
    """Whether products of a file's int8 weights can exceed 16 bits when two of them are added.

    Files by `quantize` never do; others run with uint8 weights on x86 without VNNI, which costs
    time (docs/benchmarks.md).
    """
    from onnx import load_model_from_string, numpy_helper

    graph = load_model_from_string(content).graph
    weights = {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    int8 = [one for one in graph.initializer if one.name in weights and len(one.dims) == 4]
    return any(largest_pairs(numpy_helper.to_array(one)).max() > LEVELS + 1 for one in int8)


def _without_negative_values(graph: GraphProto) -> set[str]:
    """Tensors that ReLU or Sigmoid made, and what passes them on."""
    found: set[str] = set()
    for node in graph.node:
        maps = node.input if node.op_type in {"Concat", "Add"} else node.input[:1]
        passes_on = node.op_type in _KEEP_SIGN and found.issuperset(maps)
        if passes_on or node.op_type in {"Relu", "Sigmoid"}:
            found.update(node.output)
    return found
