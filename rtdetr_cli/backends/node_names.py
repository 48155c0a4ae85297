"""Names of the nodes in a written graph: the module that each of them came from.

onnx.py calls it before it removes the exporter's notes; quantize.py and people who read a profile
of a runtime find backbone, encoder and decoder by these names.
"""

from __future__ import annotations

import ast
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

_SCOPES = "pkg.torch.onnx.name_scopes"
_ROOT = "network"
"""The attribute of DetectionGraph that holds the network."""
_REST = "post"


def name_nodes(graph: GraphProto) -> None:
    """Give every node the path of its module and its operator, `encoder/input_proj/0/0/Conv`.

    Nodes outside the network begin with `post/`; repetitions end in `_1`, `_2`...
    """
    scopes: dict[str, str] = {}  # of each tensor's producer
    taken: Counter[str] = Counter()
    for node in graph.node:
        inherited = next((scopes[name] for name in node.input if name in scopes), _REST)
        scope = _noted_scope(node) or inherited
        scopes |= dict.fromkeys(node.output, scope)
        name = f"{scope}/{node.op_type}"
        node.name = f"{name}_{taken[name]}" if taken[name] else name
        taken[name] += 1


def _noted_scope(node: NodeProto) -> str | None:
    """Where the exporter says that a node comes from; None for one that an optimizer made."""
    notes = {entry.key: entry.value for entry in node.metadata_props}
    if _SCOPES not in notes:
        return None
    *modules, _ = ast.literal_eval(notes[_SCOPES])  # the last one is the call itself
    parts = modules[-1].split(".") if modules else []
    inside = parts[1:] if parts[:1] == [_ROOT] else []
    return "/".join(inside) or _REST
