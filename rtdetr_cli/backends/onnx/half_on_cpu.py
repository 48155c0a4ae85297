"""Runs float16 ONNX graphs on a CPU as a GPU would: every float16 result is rounded, or infinite.

ONNX Runtime's CPU provider computes such graphs in float32 and rounds almost nothing, so that an
overflow goes unnoticed there. Here the graph is rewritten: float32 throughout, and after each node
whose result the file declares as float16 a cast there and one back.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rtdetr_cli.backends.onnx.detector import OnnxDetector
from rtdetr_cli.backends.onnx.half import LARGEST, float_tensors
from rtdetr_cli.backends.onnx.session import needs_onnx_extra, open_session

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_FLOAT, _HALF = 1, 10
"""TensorProto.FLOAT and FLOAT16."""
_MOVES = {
    *("Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "MaxPool"),
    *("Max", "Min", "Relu", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose"),
    *("TopK", "Unsqueeze"),
}
"""Give numbers that they were given, which are rounded already."""
_CHECK = "largest/"


class Magnitude(NamedTuple):
    """The largest number that a node gives to a float16 tensor, before it is rounded."""

    node: str
    value: float

    @property
    def overflows(self) -> bool:
        """Whether float16 makes it infinite; what lies between rounds down to 65504."""
        return not self.value < LARGEST + 16


class RoundingDetector(OnnxDetector):
    """A file of ours in float16, each result of it rounded to float16; on the CPU.

    Sums inside a node are float32, as on GPUs. A runtime that fuses nodes rounds less often, none
    rounds more: what is right here is right there.
    """

    def _open(self, path: Path, device: str | None) -> tuple[Any, str]:
        with needs_onnx_extra():
            import onnx
        model = onnx.load(path)
        self._checked = _round_results(model)
        self._seen = np.zeros(len(self._checked))
        session, runtime = open_session(path, device, model.SerializeToString())
        return _Watched(session, self._seen), f"{runtime}, every float16 rounded"

    @property
    def magnitudes(self) -> list[Magnitude]:
        """Of all nodes that round, over all images so far, the largest first."""
        found = map(Magnitude, self._checked, self._seen.tolist())
        return sorted(found, key=lambda one: -one.value)

    @property
    def overflows(self) -> list[Magnitude]:
        """Those that became infinite."""
        return [one for one in self.magnitudes if one.overflows]


class _Watched:
    """A session that also keeps the largest magnitudes."""

    def __init__(self, session: Any, seen: np.typing.NDArray[np.float64]) -> None:  # noqa: ANN401
        self._session, self._seen = session, seen
        self.get_inputs, self.get_modelmeta = session.get_inputs, session.get_modelmeta
        outputs = session.get_outputs()
        self._outputs = [one for one in outputs if not one.name.startswith(_CHECK)]
        self._checks = [one.name for one in outputs if one.name.startswith(_CHECK)]

    def get_outputs(self) -> list[Any]:
        """Those of the file."""
        return self._outputs

    def run(self, names: list[str], feed: dict[str, Any], options: object = None) -> list[Any]:
        """The outputs of the file."""
        answers = self._session.run([*names, *self._checks], feed, options)
        np.fmax(self._seen, np.array(answers[len(names) :], np.float64), out=self._seen)
        return list(answers[: len(names)])


def _round_results(model: ModelProto) -> list[str]:
    """Rewrite a graph in place; the names of the nodes whose magnitudes it gives as well."""
    graph, halves = model.graph, float_tensors(model, _HALF)
    _raise_weights(model)
    nodes: list[NodeProto] = []
    rounded: dict[str, str] = {}
    for node in graph.node:
        nodes.append(node)
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == _HALF:
                attribute.i = _FLOAT
        for place, name in enumerate(node.output):
            if name in halves and node.op_type not in _MOVES:
                node.output[place] = f"{name}/exact"
                nodes += _rounding(name)
                rounded[name] = node.name or name
    for field in ("node", "value_info"):
        graph.ClearField(field)
    graph.node.extend(nodes)
    _add_outputs(model, rounded)
    return list(rounded.values())


def _raise_weights(model: ModelProto) -> None:
    """The same numbers as float32."""
    from onnx import numpy_helper

    for weight in model.graph.initializer:
        if weight.data_type == _HALF:
            values = numpy_helper.to_array(weight).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))


def _rounding(name: str) -> list[NodeProto]:
    """`name` from `name/exact`; ONNX Runtime removes the casts that it added, not these."""
    from onnx import helper

    exact = f"{name}/exact"
    return [
        helper.make_node("Cast", [exact], [f"{name}/half"], to=_HALF),
        helper.make_node("Cast", [f"{name}/half"], [name], to=_FLOAT),
        helper.make_node("Abs", [exact], [f"{name}/size"]),
        helper.make_node("ReduceMax", [f"{name}/size"], [_CHECK + name], keepdims=0),
    ]


def _add_outputs(model: ModelProto, rounded: Iterable[str]) -> None:
    from onnx import helper

    made = [helper.make_tensor_value_info(_CHECK + name, _FLOAT, []) for name in rounded]
    model.graph.output.extend(made)
