"""Find what TensorRT would reject or misread in an ONNX graph, before an hour of building.

The rules hold for TensorRT 10.1 to 11: docs/operators.md of onnx/onnx-tensorrt for 10.1 and 10.15
(Apache-2.0; NVIDIA's opset guide for 11 refers to it), and docs/tensorrt.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rtdetr_cli.core.errors import BackendError

if TYPE_CHECKING:
    import numpy.typing as npt
    from onnx import ModelProto, NodeProto

LAST_OPSET = 19
"""From opset 20 on the parser reads GridSample's mode as nearest."""
TOP_K_LIMIT = 3840
_FLOATS = {"FLOAT", "FLOAT16", "BFLOAT16"}
_NO_BFLOAT16 = {"FLOAT", "FLOAT16"}
_NUMBERS = _FLOATS | {"INT32", "INT64"}
_BOOL = {"BOOL"}
_ALL = _NUMBERS | _BOOL
_MOVING = {
    *("Concat", "Constant", "ConstantOfShape", "Expand", "EyeLike", "Flatten", "Gather"),
    *("GatherElements", "GatherND", "Identity", "OneHot", "Reshape", "ReverseSequence", "Shape"),
    *("Size", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where"),
}
_COUNTING = {
    *("Abs", "Add", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max"),
    *("Min", "Mod", "Mul", "Neg", "Range", "Sign", "Sub", "Sum"),
}
_COMPUTING = {
    *("Acos", "Acosh", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "AveragePool"),
    *("BatchNormalization", "Ceil", "Celu", "Clip", "Conv", "ConvTranspose", "Cos", "Cosh"),
    *("CumSum", "DepthToSpace", "Dropout", "Einsum", "Elu", "Erf", "Exp", "Floor"),
    *("GRU", "Gelu", "Gemm", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool"),
    *("GroupNormalization", "HardSigmoid", "HardSwish", "Hardmax", "InstanceNormalization"),
    *("IsInf", "IsNaN", "LRN", "LSTM", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax"),
    *("LpNormalization", "LpPool", "MatMul", "MaxPool", "Mean", "MeanVarianceNormalization"),
    *("PRelu", "Pad", "Pow", "QuantizeLinear", "RNN", "Reciprocal", "ReduceL1"),
    *("ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
    *("ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Resize", "Round"),
    *("ScatterElements", "ScatterND", "Selu", "Shrink", "Sigmoid", "Sin", "Sinh", "Softmax"),
    *("Softplus", "Softsign", "SpaceToDepth", "Sqrt", "Tan", "Tanh", "ThresholdedRelu", "TopK"),
}
"""The parser accepts integers for some of these, but no graph here needs that: int64 is for
indices, shapes and classes."""
TYPES = {
    **dict.fromkeys(_MOVING, _ALL),
    **dict.fromkeys(_COUNTING, _NUMBERS),
    **dict.fromkeys(_COMPUTING, _FLOATS),
    **dict.fromkeys(("ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum"), _NUMBERS),
    **dict.fromkeys(("And", "Not", "Or", "Xor"), _BOOL),
    "Cast": _ALL | {"UINT8"},
    "DequantizeLinear": {"INT8"},
    **dict.fromkeys(("DeformConv", "GridSample", "Mish", "RoiAlign"), _NO_BFLOAT16),
}
"""Valid types of the first input, by operator."""
_ONE_TYPE = {
    *(_COUNTING | {"And", "Or", "Xor"}),
    *("BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "Gemm", "GridSample"),
    *("InstanceNormalization", "LayerNormalization", "MatMul", "Pow"),
}
"""Operators whose inputs must have the same type; for Where, those after the first."""
_CONSTANT = {
    **dict.fromkeys((name for name in _COMPUTING if name.startswith("Reduce")), 1),
    **dict.fromkeys(("CumSum", "Squeeze", "TopK", "Unsqueeze"), 1),
    "Slice": 3,
}
"""Position of the input that must be a constant, by operator."""
_DATA_DEPENDENT = {"Compress", "If", "Loop", "NonMaxSuppression", "NonZero", "Scan", "Unique"}
_ATTRIBUTES: dict[str, dict[str, set[Any]]] = {
    "GridSample": {"mode": {"bilinear"}, "padding_mode": {"zeros", "border", "reflection"}},
    "Resize": {
        "antialias": {0},
        "coordinate_transformation_mode": {
            *("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric"),
            "align_corners",
        },
        "keep_aspect_ratio_policy": {"stretch"},
        "mode": {"nearest", "linear"},
        "nearest_mode": {"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"},
    },
    "ScatterND": {"reduction": {"none"}},
    "TopK": {"sorted": {1}},
}
"""Supported attribute values; the defaults are among them."""


class _Graph(NamedTuple):
    """The facts that the rules check.

    Attributes:
        model: the file.
        types: type by tensor.
        ranks: rank by tensor, where known.
        constants: value by constant.
    """

    model: ModelProto
    types: dict[str, str]
    ranks: dict[str, int]
    constants: dict[str, npt.NDArray[Any]]


def check_for_tensorrt(path: Path) -> None:
    """Reject a file that TensorRT would reject or misread.

    Raises:
        BackendError: names the nodes and the reasons.
    """
    import onnx

    found = find_faults(onnx.load(path))
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise BackendError(f"TensorRT cannot read {path.name}: {'; '.join(found[:3])}{more}")


def find_faults(model: ModelProto) -> list[str]:
    """Describe everything that TensorRT would reject or misread; empty if nothing."""
    graph = _read(model)
    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    faults = [f"operator set {one}" for one in opsets if one != "ai.onnx"]
    if opsets.get("ai.onnx", 0) > LAST_OPSET:
        faults.append(f"opset {opsets['ai.onnx']}, at most {LAST_OPSET} is read correctly")
    for name, values in graph.constants.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            faults.append(f"constant {name} is not finite")
    for node in model.graph.node:
        if node.op_type in TYPES:
            where = f"{node.op_type} {node.name or node.output[0]}"
            faults += [f"{where}: {fault}" for rule in _RULES for fault in rule(node, graph)]
        elif node.op_type in _DATA_DEPENDENT:
            faults.append(f"{node.op_type}: shapes that depend on the data")
        else:
            faults.append(f"{node.op_type} is not supported by its parser")
    return faults


def _read(model: ModelProto) -> _Graph:
    from onnx import TensorProto, numpy_helper, shape_inference

    graph = shape_inference.infer_shapes(model).graph
    types, ranks = {}, {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        tensor = value.type.tensor_type
        types[value.name] = TensorProto.DataType.Name(tensor.elem_type)
        if tensor.HasField("shape"):
            ranks[value.name] = len(tensor.shape.dim)
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    for one in model.graph.initializer:
        types[one.name], ranks[one.name] = TensorProto.DataType.Name(one.data_type), len(one.dims)
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return _Graph(model, types, ranks, constants)


def _check_types(node: NodeProto, graph: _Graph) -> Iterator[str]:
    """Check the type of the data, and that inputs agree where they must."""
    given = [graph.types.get(name) for name in node.input if name]
    if given and given[0] and given[0] not in TYPES[node.op_type]:
        yield f"does not support {given[0].lower()}"
    alike = [kind for kind in (given[1:] if node.op_type == "Where" else given) if kind]
    if node.op_type in _ONE_TYPE | {"Where"} and len(set(alike)) > 1:
        yield f"inputs of different types ({', '.join(alike).lower()})"


def _check_bytes(node: NodeProto, graph: _Graph) -> Iterator[str]:
    """Check that only inputs of the graph are uint8."""
    inputs = {value.name for value in graph.model.graph.input}
    for name in node.input:
        if graph.types.get(name) == "UINT8" and name not in inputs:
            yield f"{name} is uint8, which only inputs of the graph may be"
    made = [name for name in node.output if graph.types.get(name) == "UINT8"]
    if made:
        yield f"{made[0]} is uint8, which only inputs of the graph may be"


def _check_attributes(node: NodeProto, graph: _Graph) -> Iterator[str]:
    """Check modes and the number of outputs."""
    from onnx import helper

    known = _ATTRIBUTES.get(node.op_type, {})
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        value = value.decode() if isinstance(value, bytes) else value
        if attribute.name in known and value not in known[attribute.name]:
            yield f"{attribute.name}={value}"
        if node.op_type == "MaxPool" and attribute.name == "dilations" and set(value) != {1}:
            yield f"dilations={value}"
    if node.op_type in {"LayerNormalization", "MaxPool"} and len(node.output) > 1:
        yield "only the first output is supported"
    if node.op_type == "GridSample" and graph.ranks.get(node.input[0]) != 4:
        yield f"supports 4 dimensions, not {graph.ranks.get(node.input[0], 'an unknown number')}"


def _check_constants(node: NodeProto, graph: _Graph) -> Iterator[str]:
    """Check inputs that must be known when the engine is built."""
    place = _CONSTANT.get(node.op_type, len(node.input))
    if len(node.input) > place and node.input[place] and node.input[place] not in graph.constants:
        yield f"{node.input[place]} is not a constant"
    elif node.op_type == "TopK" and int(graph.constants[node.input[1]].max()) >= TOP_K_LIMIT:
        yield f"k={int(graph.constants[node.input[1]].max())}, must be less than {TOP_K_LIMIT}"


def _check_scales(node: NodeProto, graph: _Graph) -> Iterator[str]:
    """Check that quantisation is symmetric int8 with constant scales."""
    if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
        return
    scale = graph.constants.get(node.input[1])
    if scale is None:
        yield f"its scale {node.input[1]} is not a constant"
    elif not (scale > 0).all():
        yield "a scale that is not positive"
    zero = graph.constants.get(node.input[2]) if len(node.input) > 2 else np.zeros(1, np.int8)
    if zero is None or zero.any():
        yield "a zero point that is not 0"
    elif zero.dtype != np.int8:
        yield f"{zero.dtype} instead of int8"


_RULES: tuple[Callable[[NodeProto, _Graph], Iterator[str]], ...] = (
    _check_types,
    _check_bytes,
    _check_attributes,
    _check_constants,
    _check_scales,
)
