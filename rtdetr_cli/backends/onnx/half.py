"""Convert an ONNX graph to mixed float16, keeping float32 where float16 loses accuracy.

The types in the graph decide, not a flag of the runtime, so ONNX Runtime and TensorRT read the same
file. Nodes that stay float32 are found by data flow, not by name: see `exact_nodes`.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

LARGEST = 65504.0
"""The largest float16."""
_BORDERS = {"Conv", "Gemm", "MatMul", "LayerNormalization", "Softmax", "GridSample"}
"""Float32 regions end at these: expensive operators that round once, at their output."""
_ANY_TYPE = {"Cast", "Shape", "Size"}
_FLOAT, _HALF = 1, 10
"""TensorProto.FLOAT and FLOAT16."""


def halve_file(path: Path) -> int:
    """Convert a float32 file by `write_onnx` to mixed float16 in place.

    Inputs and outputs keep their types.

    Returns:
        The number of nodes.
    """
    import onnx

    model = onnx.load(path)
    to_half(model, exact_nodes(model))
    for entry in model.metadata_props:
        if entry.key == "precision":
            entry.value = json.dumps("fp16")
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return len(model.graph.node)


def exact_nodes(model: ModelProto) -> set[str]:
    """Nodes of a float32 graph that stay float32, by the name of their first output.

    Small regions: the computation of the outputs, that of the sampling locations of deformable
    attention, and RMSNorm. The first contains the boxes of all layers and their logits, which lose
    0.2 px in float16, and the distributions of FDR decoders; the second feeds indices and grids;
    the squares of the third overflow. GridSample itself is float32 because ONNX Runtime has no
    float16 kernel for CUDA. Everything else is as accurate in float16 (docs/benchmarks.md,
    tests/benchmarks/fp16_islands.py).
    """
    graph = model.graph
    seeds = [output.name for output in graph.output]
    seeds += [name for node in graph.node for name in _places(node)]
    exact = walk(model, seeds, _BORDERS - {"Softmax"})
    exact |= walk(model, [node.input[0] for node in graph.node if node.op_type == "Sqrt"])
    exact |= {node.output[0] for node in graph.node if node.op_type == "GridSample"}
    return spread(model, exact)


def _places(node: NodeProto) -> list[str]:
    """Inputs of a node that hold sampling locations: a grid, or values cast to an index."""
    if node.op_type == "GridSample":
        return [node.input[1]]
    kinds = [attribute.i for attribute in node.attribute if attribute.name == "to"]
    is_index = node.op_type == "Cast" and not {_FLOAT, _HALF} & set(kinds)
    return [node.input[0]] if is_index else []


def walk(
    model: ModelProto, tensors: Iterable[str], borders: Container[str] = frozenset(_BORDERS)
) -> set[str]:
    """Nodes that compute tensors, by the name of their first output.

    Walks back from each tensor through floats to the nearest product, norm, softmax or sampling,
    excluded: their results are float16.
    """
    makers = {output: node for node in model.graph.node for output in node.output}
    floats = float_tensors(model)
    found: set[str] = set()
    pending = [name for name in tensors if name in makers]
    while pending:
        node = makers[pending.pop()]
        if node.op_type not in borders and node.output[0] not in found:
            found.add(node.output[0])
            pending += [name for name in node.input if name in floats and name in makers]
    return found


def spread(model: ModelProto, exact: set[str]) -> set[str]:
    """Add nodes that read only float32 results, up to the next expensive operator.

    Interpolation weights are the fractional part of a location, which needs full precision.
    """
    floats = float_tensors(model) - {weight.name for weight in model.graph.initializer}
    floats -= {value.name for value in model.graph.input}
    known = {name for node in model.graph.node if node.output[0] in exact for name in node.output}
    found = set(exact)
    for node in model.graph.node:
        reads = set() if node.op_type in _ANY_TYPE else floats & set(node.input)
        if node.op_type not in _BORDERS and reads <= known:
            known.update(node.output)
            found.add(node.output[0])
    return found


def float_tensors(model: ModelProto, kind: int = _FLOAT) -> set[str]:
    """Names of all tensors of a type: float32, or float16 with `kind=10`."""
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    found = {value.name for value in values if value.type.tensor_type.elem_type == kind}
    return found | {weight.name for weight in graph.initializer if weight.data_type == kind}


def to_half(model: ModelProto, exact: Container[str]) -> None:
    """Convert all nodes to float16 except `exact`, given by the name of their first output.

    A tensor needed in both types gets one Cast. Inputs and outputs of the graph keep their types.
    Nodes that read a constant above 65504 stay float32 too.
    """
    _Halver(model).run(exact)


class _Halver:
    """Convert nodes in graph order, tracking the type of every tensor."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.floats = float_tensors(model)
        self.outputs = {output.name for output in model.graph.output}
        self.weights = {weight.name: weight for weight in model.graph.initializer}
        self.halves: set[str] = set()
        self.twins: dict[str, str] = {}
        self.nodes: list[NodeProto] = []

    def run(self, exact: Container[str]) -> None:
        graph = self.graph
        for node in graph.node:
            self._add(node, node.output[0] in exact or self._has_large_constant(node))
        used = {name for node in self.nodes for name in node.input}
        weights = [weight for weight in self.weights.values() if weight.name in used]
        for field in ("node", "initializer", "value_info"):
            graph.ClearField(field)
        graph.node.extend(self.nodes)
        graph.initializer.extend(weights)

    def _add(self, node: NodeProto, is_exact: bool) -> None:
        places = self._float_inputs(node)
        for place in places:
            node.input[place] = self._as_type(node.input[place], not is_exact)
        self.nodes.append(node)
        if places and not is_exact:
            for place, name in enumerate(node.output):
                if name in self.floats:
                    self._make_half(node, place)

    def _float_inputs(self, node: NodeProto) -> list[int]:
        """Positions of the inputs that must have the type of the node."""
        if node.op_type in _ANY_TYPE:
            return []
        places = [place for place, name in enumerate(node.input) if name in self.floats]
        return places[:1] if node.op_type == "Resize" else places  # roi and scales are float32

    def _make_half(self, node: NodeProto, place: int) -> None:
        """Mark an output as float16; an output of the graph is cast back to float32."""
        from onnx import helper

        name = node.output[place]
        if name in self.outputs:
            node.output[place] = half = f"{name}_half"
            self.nodes.append(helper.make_node("Cast", [half], [name], f"{name}_cast", to=_FLOAT))
            self.twins[name] = half
        else:
            self.halves.add(name)

    def _as_type(self, name: str, wants_half: bool) -> str:
        """Name of the tensor in the requested type."""
        if (name in self.halves) == wants_half:
            return name
        if name not in self.twins:
            self.twins[name] = self._make_twin(name, wants_half)
        return self.twins[name]

    def _make_twin(self, name: str, wants_half: bool) -> str:
        from onnx import helper, numpy_helper

        twin = f"{name}_{'half' if wants_half else 'float'}"
        if name in self.weights:
            values = numpy_helper.to_array(self.weights[name]).astype(np.float16)
            self.weights[twin] = numpy_helper.from_array(values, twin)
        else:
            kind = _HALF if wants_half else _FLOAT
            self.nodes.append(helper.make_node("Cast", [name], [twin], f"{twin}_cast", to=kind))
        return twin

    def _has_large_constant(self, node: NodeProto) -> bool:
        from onnx import numpy_helper

        weights = [self.weights[name] for name in node.input if name in self.weights]
        arrays = [numpy_helper.to_array(one) for one in weights if one.data_type == _FLOAT]
        return any(array.size and np.abs(array).max() > LARGEST for array in arrays)
