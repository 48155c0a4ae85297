"""INT8 ONNX files: insert explicit Q/DQ pairs around the convolutions.

One graph serves TensorRT and ONNX Runtime: int8 with zero point 0, one scale per activation and
per weight channel, float biases. ONNX Runtime's quantizer is not used: its symmetric mode puts
pairs between a convolution and its ReLU, which TensorRT cannot fuse, and leaves most convolutions
in float on x86 (docs/benchmarks.md). calibration.py measures the ranges, int8_on_cpu.py adapts the
graph to CPUs.
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
"""Largest int8; -128 is unused, for symmetry. It also bounds the sum of two neighbouring weights of
an output channel: x86 without VNNI adds their products with uint8 in 16 bits, where 255 * 129 would
saturate."""
_BIAS_LIMIT = 2.0**30
_BLOCK = re.compile(r"(?:backbone|encoder)/[a-z]\w*(?:/\d+)?(?=/)")
_SAME_SCALE = {"AveragePool", "Concat", "MaxPool", "Resize", "Pad"}
"""Operators that keep values: with equal scales before and after, they run on integers."""
_JOINS = {"Add", *_SAME_SCALE}


def block_of(node: NodeProto) -> str | None:
    """The block of a convolution in backbone or encoder, for example `backbone/stages/2`.

    None for other operators and other parts of the network, which stay float.
    """
    return block_at(node.name) if node.op_type == "Conv" else None


def block_at(name: str) -> str | None:
    """The block of a convolution, by the name of its node."""
    found = _BLOCK.match(name)
    return found.group() if found else None


def blocks(graph: GraphProto) -> list[str]:
    """All blocks with convolutions, in graph order."""
    return list(dict.fromkeys(filter(None, map(block_of, graph.node))))


@dataclass
class Pairs:
    """Positions of the Q/DQ pairs.

    Attributes:
        convs: the quantised convolutions.
        readers: by tensor, the (node, input position) that read its quantised form.
        shared: pairs of tensors that must have the same scale.
    """

    convs: list[NodeProto] = field(default_factory=list)
    readers: dict[str, list[tuple[NodeProto, int]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    shared: list[tuple[str, str]] = field(default_factory=list)


def plan(graph: GraphProto, kept_float: Collection[str] = ()) -> Pairs:
    """Select the tensors that get a Q/DQ pair.

    These are the inputs of quantised convolutions; the inputs of the concatenations, sums, pools
    and upsamplings that produce them; and the output of a convolution before SiLU, which ONNX
    Runtime would otherwise compute in float. Never a tensor between a convolution or sum and its
    ReLU.

    Args:
        graph: a float graph whose nodes are named after their modules.
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
        self.constants = {constant.name for constant in graph.initializer}
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
        """Add a reader; the operator that joins maps into this tensor then reads integers too."""
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
        inputs = producer.input if is_list else producer.input[:1]
        if self.constants.intersection(inputs):  # the shift of a learnable affine joins nothing
            return
        for position, name in enumerate(inputs):
            self._want(name, producer, position)
            if producer.op_type in _SAME_SCALE:
                self.pairs.shared.append((name, tensor))


def quantize(
    model: ModelProto, largest: Mapping[str, float], kept_float: Collection[str] = ()
) -> ModelProto:
    """Insert the pairs into a copy of a float graph.

    Args:
        model: written by `write_onnx`.
        largest: by tensor of `plan`, the magnitude that maps to 127.
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
    """Per output channel, the largest |a| + |b| of two neighbouring weights, or largest weight.

    One instruction multiplies both. Neighbours are those in (K, K, C_in) order, because ONNX
    Runtime convolves in channels-last.

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
    """Scale by tensor; tensors that share a scale get the largest of theirs."""
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
    """Insert nodes and constants into a graph, each pair right after the node that it rounds."""

    def __init__(self, graph: GraphProto) -> None:
        from onnx import numpy_helper

        self.graph = graph
        self.constants = {one.name: one for one in graph.initializer}
        self.to_array = numpy_helper.to_array
        self.from_array = numpy_helper.from_array
        self.after: dict[str, list[NodeProto]] = {}
        self.at_start: list[NodeProto] = []
        self.names = {
            name: f"{node.name}_{place}" if place else node.name
            for node in graph.node
            for place, name in enumerate(node.output)
        }

    def add_pair(self, tensor: str, scale: float, readers: list[tuple[NodeProto, int]]) -> None:
        """Replace the input of the readers by the int8 form of a tensor, with zero point 0."""
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
        """Store the weights of a convolution as int8, with one scale per output channel.

        No sum of two neighbours exceeds LEVELS, so all CPUs compute the same (docs/benchmarks.md).

        ONNX Runtime quantises the bias to 32 bits with the product of both scales. If a channel has
        almost no weights, its scale is enlarged until the bias fits.
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
        """Write nodes and constants back into the graph, in topological order."""
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
