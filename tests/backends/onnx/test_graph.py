"""Names of nodes, from notes like those of PyTorch's exporter; a real file: test_export.py."""

from __future__ import annotations

from onnx import parser

from rtdetr_cli.backends.onnx.graph import name_nodes

GRAPH = """<ir_version: 8, opset_import: ["" : 17]>
noted (float[4] x) => (float[4] z) { a = Relu(x) b = Relu(a) c = Neg(b) d = Abs(c) z = Exp(d) }"""


def test_a_name_is_the_path_of_the_module_and_the_operator():
    graph = parser.parse_model(GRAPH).graph
    notes = [
        "['', 'network', 'network.backbone', 'network.backbone.stages.0', 'relu']",
        "['', 'network', 'network.backbone', 'network.backbone.stages.0', 'relu_1']",
        None,  # an optimizer's: it belongs to what it reads
        "['', 'floor_divide']",
        "['_empty_nn_module_stack_from_metadata_hook', 'sym_size_int_8']",
    ]
    for node, note in zip(graph.node, notes, strict=True):
        if note:
            node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=note)
    name_nodes(graph)
    assert [node.name for node in graph.node] == [
        "backbone/stages/0/Relu",
        "backbone/stages/0/Relu_1",
        "backbone/stages/0/Neg",
        "post/Abs",
        "post/Exp",
    ]
