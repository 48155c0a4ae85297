"""Select the operators that stay float32 when OpenVINO's CPU plugin computes in bf16.

The plugin itself keeps everything after the last product in float32, including the final boxes and
scores. Two regions remain, found by data flow, not by name. docs/benchmarks.md has the drift of
boxes of a trained rtdetr-n with neither, one or both of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

_PRODUCTS = {"MatMul", "Convolution", "GroupConvolution"}
_NO_VALUES = {"Constant", "Parameter"}


def keep_float32(model: Any) -> set[str]:  # noqa: ANN401
    """Names of the operators that stay float32; operators that would lose the mark are rewritten.

    - Up to the first convolution and its ReLU: bf16 has too few bits for the 256 values of a pixel.
    - The sampling locations of the decoder: in bf16 the box of a query, to which they are relative,
      is off by a pixel.

    Args:
        model: an openvino.Model by `write_onnx`; subtractions of constants are rewritten.
    """
    _restate_subtractions(model)
    nodes = model.get_ordered_ops()
    first = next(node for node in nodes if node.get_type_name() == "Convolution")
    grids = [_input(node, 1) for node in nodes if node.get_type_name() == "GridSample"]
    stem = [*_behind([_input(first, 0)]), first, *_bias_and_relu(first)]
    return {node.get_friendly_name() for node in (*stem, *_behind(grids))}


def mark_float32(xml: Path, names: set[str]) -> None:
    """Mark operators in a written graph; all releases since 2022 read the mark.

    OpenVINO's Python API cannot set it.
    """
    if not names:
        return
    tree = ElementTree.parse(xml)
    for layer in tree.iterfind("layers/layer"):
        if layer.get("name") in names:
            notes = layer.find("rt_info")
            if notes is None:
                notes = ElementTree.Element("rt_info")
                layer.insert(0 if layer.find("data") is None else 1, notes)
            ElementTree.SubElement(notes, "attribute", name="precise", version="0")
    tree.write(xml)


def _restate_subtractions(model: Any) -> None:  # noqa: ANN401
    """Rewrite x - c as x + (-c): the plugin does so too, but drops the mark."""
    from openvino import opset13 as operators

    for node in model.get_ordered_ops():
        if node.get_type_name() != "Subtract" or _input(node, 1).get_type_name() != "Constant":
            continue
        added = operators.add(node.input_value(0), operators.constant(-_input(node, 1).get_data()))
        added.set_friendly_name(node.get_friendly_name())
        node.output(0).replace(added.output(0))


def _behind(starts: Iterable[Any]) -> list[Any]:
    """The operators that compute these values, back to the nearest products."""
    found: dict[str, Any] = {}
    waiting = list(starts)
    while waiting:
        node = waiting.pop()
        name, kind = node.get_friendly_name(), node.get_type_name()
        if name not in found and kind not in _PRODUCTS | _NO_VALUES:
            found[name] = node
            waiting += [value.get_node() for value in node.input_values()]
    return list(found.values())


def _bias_and_relu(convolution: Any) -> list[Any]:  # noqa: ANN401
    """Operators that the plugin fuses with a convolution; they need the same precision."""
    found = []
    node = convolution
    for kind in ("Add", "Relu"):
        readers = [target.get_node() for target in node.output(0).get_target_inputs()]
        node = next((reader for reader in readers if reader.get_type_name() == kind), None)
        if node is None:
            break
        found.append(node)
    return found


def _input(node: Any, index: int) -> Any:  # noqa: ANN401
    return node.input_value(index).get_node()
