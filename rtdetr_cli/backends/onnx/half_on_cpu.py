"""Emulate float16 ONNX graphs on a CPU: every float16 result is rounded or overflows, as on a GPU.

ONNX Runtime's CPU provider computes such graphs in float32 with hardly any rounding and hides
overflows. Here the graph is rewritten to float32, with a cast to float16 and back after each node
whose result the file declares as float16.
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
"""Operators that only move or select values, which are rounded already."""
_CHECK = "largest/"


class Magnitude(NamedTuple):
    """The largest magnitude that a node writes to a float16 tensor, before rounding."""

    node: str
    value: float

    @property
    def overflows(self) -> bool:
        """Whether it rounds to infinity; values up to 65504 + 16 round down to 65504."""
        return not self.value < LARGEST + 16


class RoundingDetector(OnnxDetector):
    """Run a float16 file on the CPU with every result rounded to float16.

    Sums inside a node are float32, as on GPUs. Runtimes that fuse nodes round less often, never
    more often, so this is the worst case.
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
        """Magnitudes of all rounded nodes over all images so far, largest first."""
        found = map(Magnitude, self._checked, self._seen.tolist())
        return sorted(found, key=lambda one: -one.value)

    @property
    def overflows(self) -> list[Magnitude]:
        """Magnitudes that became infinite."""
        return [one for one in self.magnitudes if one.overflows]


class _Watched:
    """A session that also records the largest magnitudes."""

    def __init__(self, session: Any, seen: np.typing.NDArray[np.float64]) -> None:  # noqa: ANN401
        self._session, self._seen = session, seen
        self.get_inputs, self.get_modelmeta = session.get_inputs, session.get_modelmeta
        outputs = session.get_outputs()
        self._outputs = [one for one in outputs if not one.name.startswith(_CHECK)]
        self._checks = [one.name for one in outputs if one.name.startswith(_CHECK)]

    def get_outputs(self) -> list[Any]:
        """The outputs of the file."""
        return self._outputs

    def run(self, names: list[str], feed: dict[str, Any], options: object = None) -> list[Any]:
        """The outputs of the file."""
        outputs = self._session.run([*names, *self._checks], feed, options)
        np.fmax(self._seen, np.array(outputs[len(names) :], np.float64), out=self._seen)
        return list(outputs[: len(names)])


def _round_results(model: ModelProto) -> list[str]:
    """Rewrite a graph in place; return the names of the nodes whose magnitudes it outputs."""
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
    """Convert float16 weights to float32, which is exact."""
    from onnx import numpy_helper

    for weight in model.graph.initializer:
        if weight.data_type == _HALF:
            values = numpy_helper.to_array(weight).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))


def _rounding(name: str) -> list[NodeProto]:
    """Compute `name` from `name/exact`; ONNX Runtime removes only casts that it added itself."""
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
