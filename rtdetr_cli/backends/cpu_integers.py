"""INT8 for ONNX Runtime on a CPU: the same numbers with other zero points, in memory only.

On x86 its integer kernels want uint8. A map without negative values keeps its scale and gets 0 as
zero point, by which the runtime folds ReLU into the convolution; other maps get 128.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto

_PASS_ON = {"MaxPool", "Resize", "Concat", "Add", "Pad", "QuantizeLinear", "DequantizeLinear"}
"""Operators whose result has no negative value where their inputs have none."""


def restate_for_cpu(model: ModelProto) -> None:
    """Turn activations of a graph by `quantize` from int8 to uint8; weights stay int8.

    Values up to 127 scales are the same numbers as before; above, where int8 clips, maps without
    negative values go on to 255.
    """
    from onnx import numpy_helper

    graph = model.graph
    constants = {one.name for one in graph.initializer}
    positive = _without_negative_values(model, constants)
    zeros = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            zeros[node.input[2]] = 0 if node.input[0] in positive else 128
    for constant in graph.initializer:
        if constant.name in zeros:
            value = np.array(zeros[constant.name], np.uint8)
            constant.CopyFrom(numpy_helper.from_array(value, constant.name))


def _without_negative_values(model: ModelProto, constants: set[str]) -> set[str]:
    found: set[str] = set()
    for node in model.graph.node:
        is_one = node.op_type in {"Relu", "Sigmoid"}
        maps = node.input[:1] if node.op_type not in {"Concat", "Add"} else node.input
        if node.op_type in _PASS_ON:
            is_one = all(name in found and name not in constants for name in maps)
        if is_one:
            found.update(node.output)
    return found
