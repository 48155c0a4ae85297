"""Clean-up of traced graphs: opsets, pads, names of nodes; and checks of the result."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

from rtdetr_cli.backends.onnx.graph import check_graph, drop_pads, name_nodes, restate_opset
from rtdetr_cli.core.errors import BackendError

NOTED = """<ir_version: 8, opset_import: ["" : 17]>
noted (float[4] x) => (float[4] z) { a = Relu(x) b = Relu(a) c = Neg(b) d = Abs(c) z = Exp(d) }"""


def test_a_name_is_the_path_of_the_module_and_the_operator():
    graph = parser.parse_model(NOTED).graph
    notes = [
        "['', 'network', 'network.backbone', 'network.backbone.stages.0', 'relu']",
        "['', 'network', 'network.backbone', 'network.backbone.stages.0', 'relu_1']",
        None,  # from an optimizer: it gets the scope of its input
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


CHANGED = """<ir_version: 10, opset_import: ["" : 18]>
changed (float[N,4,2,2] x) => (float[N,2] low, float[N,2,4,4] high) {
  left, right = Split<axis = 1, num_outputs = 2>(x)
  high = Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric",
      nearest_mode = "floor", antialias = 0, keep_aspect_ratio_policy = "stretch">(left, , scales)
  low = ReduceMax<keepdims = 0, noop_with_empty_axes = 0>(right, axes)
}"""


@pytest.mark.parametrize("opset", [17, 18, 19])
def test_all_opsets_compute_the_same(opset):
    model = parser.parse_model(CHANGED)
    values = {"axes": np.array([2, 3]), "scales": np.array([1, 1, 2, 2], np.float32)}
    for name, value in values.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    restate_opset(model, opset)
    check_graph(model, opset)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = np.random.default_rng(0).random((3, 4, 2, 2), np.float32)
    low, high = session.run(None, {"x": x})
    np.testing.assert_array_equal(low, x[:, 2:].max((2, 3)))
    np.testing.assert_array_equal(high, x[:, :2].repeat(2, 2).repeat(2, 3))


PADDED = """<ir_version: 8, opset_import: ["" : 17]>
padded (float[N,1,4,4] x) => (float[N,1,4,4] y) {
  positive = Relu(x)
  wide = Pad<mode = "constant">(positive, pads)
  y = MaxPool<kernel_shape = [2, 2], pads = [0, 0, 0, 0]>(wide)
}"""


def test_a_pad_before_a_max_pool_is_dropped():
    model = parser.parse_model(PADDED)
    pads = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    model.graph.initializer.append(onnx.numpy_helper.from_array(pads, "pads"))
    x = np.random.default_rng(0).standard_normal((2, 1, 4, 4)).astype(np.float32)
    outputs = []
    for _ in range(2):
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        outputs.append(session.run(None, {"x": x})[0])
        drop_pads(model)
    assert [node.op_type for node in model.graph.node] == ["Relu", "MaxPool"]
    np.testing.assert_array_equal(outputs[0], outputs[1])


def test_a_pad_whose_zeros_could_be_the_maximum_stays():
    model = parser.parse_model(PADDED.replace("Relu", "Neg"))
    drop_pads(model)
    assert len(model.graph.node) == 3


def test_graphs_that_runtimes_misread_are_rejected():
    text = """<ir_version: 9, opset_import: ["" : 20]>
    sampled (float[1,1,4,4] x, float[1,1,1,2] grid) => (float[1,1,1,1] y) {
      z = GridSample<mode = "linear">(x, grid)
      y = Add(z, c)
    }"""
    model = parser.parse_model(text)
    constant = onnx.numpy_helper.from_array(np.array(np.inf, np.float32), "c")
    model.graph.initializer.append(constant)
    with pytest.raises(BackendError) as caught:
        check_graph(model, 17)
    sentence = str(caught.value)
    assert "operator sets {'': 20} instead of 17" in sentence
    assert "GridSample modes {'linear'} instead of bilinear" in sentence
    assert "a constant that is not finite" in sentence


def test_an_invalid_graph_is_rejected(toy_graph):
    model = parser.parse_model(toy_graph.replace("Round", "Rounded"))
    with pytest.raises(BackendError, match="Rounded"):
        check_graph(model, 17)
