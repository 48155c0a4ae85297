"""INT8 in an ONNX file of ours: writes explicit Q/DQ pairs around the convolutions.

One graph for TensorRT and ONNX Runtime: int8 with zero point 0, a scale per activation and per
channel of weights, biases in float. ONNX Runtime's own quantizer is not used, because its symmetric
form has pairs between a convolution and its ReLU, which TensorRT cannot fuse, and leaves most
convolutions in float on x86 (docs/benchmarks.md). calibration.py measures the ranges,
int8_on_cpu.py restates the graph for the CPU.
"""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

LEVELS = 127
"""The largest int8; -128 has no partner and stays unused. Two neighbouring weights of an output
channel share it: x86 without VNNI adds their products with uint8 in 16 bits, where 255 * 129 would
saturate."""
_BIAS_LIMIT = 2.0**30
_BLOCK = re.compile(r"(?:backbone|encoder)/[a-z]\w*(?:/\d+)?(?=/)")
_SAME_SCALE = {"AveragePool", "Concat", "MaxPool", "Resize", "Pad"}
"""Operators that pass values on as they are: with one scale before and behind them integers do."""
_JOINS = {"Add", *_SAME_SCALE}


def block_of(node: NodeProto) -> str | None:
    """The part of backbone or encoder that a convolution belongs to: `backbone/stages/2`.

    None for other operators and other parts of the network, which stay float.
    """
    return block_at(node.name) if node.op_type == "Conv" else None


def block_at(name: str) -> str | None:
    """The same for the name of a convolution."""
    found = _BLOCK.match(name)
    return found.group() if found else None


def blocks(graph: GraphProto) -> list[str]:
    """All parts with convolutions, in the order of the graph."""
    return list(dict.fromkeys(filter(None, map(block_of, graph.node))))


@dataclass
class Pairs:
    """Where the pairs stand.

    Attributes:
        convs: the quantised convolutions.
        readers: tensor to the (node, position of the input) that read its quantised form.
        shared: tensors that must have one scale, two by two.
    """

    convs: list[NodeProto] = field(default_factory=list)
    readers: dict[str, list[tuple[NodeProto, int]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    shared: list[tuple[str, str]] = field(default_factory=list)


def plan(graph: GraphProto, kept_float: Collection[str] = ()) -> Pairs:
    """Choose the tensors that get a pair.

    They are the inputs of quantised convolutions; behind these what a concatenation, a sum, a pool
    or an upsampling made of quantised maps; and a convolution's output before SiLU, without which
    ONNX Runtime computes it in float. Never what lies between a convolution or a sum and its ReLU.

    Args:
        graph: float, its nodes named after their modules.
        kept_float: blocks that stay float.
    """
    return _Planner(graph, set(kept_float)).pairs


class _Planner:
    def __init__(self, graph: GraphProto, kept_float: set[str]) -> None:
        self.producers = {name: node for node in graph.node for name in node.output}
        self.consumers: dict[str, list[tuple[NodeProto, int]]] = defaultdict(list)
        for node in graph.node:
            for place, name in enumerate(node.input):
                self.consumers[name].append((node, place))
        self.pairs = Pairs()
        for node in graph.node:
            if (block_of(node) or "") not in {"", *kept_float}:
                self.pairs.convs.append(node)
        for node in self.pairs.convs:
            self._want(node.input[0], node, 0)
            followers = self.consumers[node.output[0]]
            if any(follower.op_type == "Sigmoid" for follower, _ in followers):
                for follower, place in followers:
                    self._want(node.output[0], follower, place)

    def _want(self, tensor: str, reader: NodeProto, place: int) -> None:
        """A reader of integers; whoever joins maps into this tensor reads integers too."""
        known = self.pairs.readers[tensor]
        if (reader, place) in known:
            return
        known.append((reader, place))
        if len(known) > 1:
            return
        producer = self.producers.get(tensor)
        if producer is not None and producer.op_type == "Relu":
            producer = self.producers.get(producer.input[0])
        if producer is None or producer.op_type not in _JOINS:
            return
        is_list = producer.op_type in {"Add", "Concat"}
        for position, name in enumerate(producer.input if is_list else producer.input[:1]):
            self._want(name, producer, position)
            if producer.op_type in _SAME_SCALE:
                self.pairs.shared.append((name, tensor))


def quantize(
    model: ModelProto, largest: Mapping[str, float], kept_float: Collection[str] = ()
) -> ModelProto:
    """Write the pairs into a copy of a float graph.

    Args:
        model: as `write_onnx` wrote it.
        largest: tensor to the magnitude that becomes 127, for every tensor of `plan`.
        kept_float: blocks without pairs.
    """
    model = copy.deepcopy(model)
    graph = model.graph
    pairs = plan(graph, kept_float)
    scales = _scales(pairs, largest)
    writer = _Writer(graph)
    inputs = {conv.name: scales[conv.input[0]] for conv in pairs.convs}
    for tensor, readers in pairs.readers.items():
        writer.add_pair(tensor, scales[tensor], readers)
    for conv in pairs.convs:
        writer.quantize_weight(conv, inputs[conv.name])
    writer.finish()
    return model


def largest_pairs(weight: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The largest |a| + |b| of two weights that one instruction multiplies, or the largest weight.

    Neighbours are those in the order (K, K, C_in): ONNX Runtime multiplies maps in channels-last.

    Args:
        weight: (C_out, C_in, K, K), of any number type.

    Returns:
        (C_out,)
    """
    magnitudes = np.abs(weight.astype(np.float64))
    rows = magnitudes.transpose(0, 2, 3, 1).reshape(len(weight), -1)
    sums: npt.NDArray[np.float64] = rows[:, :-1] + rows[:, 1:]
    largest: npt.NDArray[np.float64] = np.maximum(rows.max(1), sums.max(1, initial=0))
    return largest


def _scales(pairs: Pairs, largest: Mapping[str, float]) -> dict[str, float]:
    """A scale for each tensor; those that share one get the largest of theirs."""
    values = {tensor: largest[tensor] for tensor in pairs.readers}
    is_settled = False
    while not is_settled:
        is_settled = True
        for one, other in pairs.shared:
            if values[one] != values[other]:
                values[one] = values[other] = max(values[one], values[other])
                is_settled = False
    return {tensor: (value or 1.0) / LEVELS for tensor, value in values.items()}


class _Writer:
    """Adds nodes and constants to a graph, each pair right behind the node that it rounds."""

    def __init__(self, graph: GraphProto) -> None:
        from onnx import numpy_helper

        self.graph = graph
        self.constants = {one.name: one for one in graph.initializer}
        self.to_array = numpy_helper.to_array
        self.from_array = numpy_helper.from_array
        self.after: dict[str, list[NodeProto]] = {}
        self.at_start: list[NodeProto] = []
        self.names = {name: node.name for node in graph.node for name in node.output}

    def add_pair(self, tensor: str, scale: float, readers: list[tuple[NodeProto, int]]) -> None:
        """Let the readers see a tensor as int8 with zero point 0."""
        from onnx import helper

        constants = self._constants(tensor, np.array(scale, np.float32))
        low, back = f"{tensor}_int8", f"{tensor}_rounded"
        name = self.names.get(tensor, f"backbone/{tensor}")
        self.after[tensor] = [
            helper.make_node("QuantizeLinear", [tensor, *constants], [low], f"{name}/Quantize"),
            helper.make_node("DequantizeLinear", [low, *constants], [back], f"{name}/Dequantize"),
        ]
        for node, place in readers:
            node.input[place] = back

    def quantize_weight(self, conv: NodeProto, input_scale: float) -> None:
        """Store a convolution's weights as int8, one scale for each output channel.

        No pair of neighbours exceeds LEVELS, so that every CPU computes the same (docs/export.md).

        ONNX Runtime counts the bias in units of both scales, in 32 bits, which are too few where a
        channel has almost no weights: its scale is larger then.
        """
        from onnx import helper

        weight = conv.input[1]
        values = self.to_array(self.constants.pop(weight))  # (C_out, C_in, K, K)
        scale = largest_pairs(values) / LEVELS
        if len(conv.input) > 2:
            bias = np.abs(self.to_array(self.constants[conv.input[2]]))
            scale = np.maximum(scale, bias / (input_scale * _BIAS_LIMIT))
        scale = np.where(scale > 0, scale, 1.0)
        low = np.rint(values / scale[:, None, None, None]).astype(np.int8)
        self._add(f"{weight}_int8", low)
        inputs = [f"{weight}_int8", *self._constants(weight, scale.astype(np.float32))]
        conv.input[1] = f"{weight}_rounded"
        name = f"{conv.name}/Weight"
        node = helper.make_node("DequantizeLinear", inputs, [conv.input[1]], name, axis=0)
        self.at_start.append(node)

    def finish(self) -> None:
        """Put the nodes into their places and the constants into the graph."""
        nodes = [*self.at_start]
        for value in self.graph.input:
            nodes += self.after.get(value.name, [])
        for node in self.graph.node:
            nodes.append(node)
            for tensor in node.output:
                nodes += self.after.get(tensor, [])
        self.graph.ClearField("node")
        self.graph.node.extend(nodes)
        self.graph.ClearField("initializer")
        self.graph.initializer.extend(self.constants.values())

    def _constants(self, tensor: str, scale: npt.NDArray[np.float32]) -> list[str]:
        names = [f"{tensor}_scale", f"{tensor}_zero"]
        self._add(names[0], scale)
        self._add(names[1], np.zeros(scale.shape, np.int8))
        return names

    def _add(self, name: str, value: npt.NDArray[np.float32] | npt.NDArray[np.int8]) -> None:
        self.constants[name] = self.from_array(value, name)
