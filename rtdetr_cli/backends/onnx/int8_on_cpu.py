"""Adapt INT8 files to ONNX Runtime on a CPU, in memory: same values, other zero points.

The integer kernels for x86 take uint8. Maps without negative values keep their scale and get zero
point 0, with which the runtime folds ReLU into the convolution; other maps get 128. Unchanged, the
INT8 graph of rtdetr-n is slower than float32; rewritten, it is faster (docs/benchmarks.md).
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
"""Operators whose output is non-negative if their inputs are."""


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

    Values up to 127 scales are unchanged; non-negative maps clip at 255 scales instead of 127.
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
    """Whether the sum of two products with int8 weights can exceed 16 bits.

    Never in files by `quantize`; other files run with uint8 weights on x86 without VNNI, which is
    slower (docs/benchmarks.md).
    """
    from onnx import load_model_from_string, numpy_helper

    graph = load_model_from_string(content).graph
    weights = {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    int8 = [one for one in graph.initializer if one.name in weights and len(one.dims) == 4]
    return any(largest_pairs(numpy_helper.to_array(one)).max() > LEVELS + 1 for one in int8)


def _without_negative_values(graph: GraphProto) -> set[str]:
    """Outputs of ReLU and Sigmoid, and of operators that preserve the sign."""
    found: set[str] = set()
    for node in graph.node:
        maps = node.input if node.op_type in {"Concat", "Add"} else node.input[:1]
        keeps_sign = node.op_type in _KEEP_SIGN and found.issuperset(maps)
        if keeps_sign or node.op_type in {"Relu", "Sigmoid"}:
            found.update(node.output)
    return found
