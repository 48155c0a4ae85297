"""Which nodes become float16 and which stay float32, on graphs of a few nodes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import checker, numpy_helper, parser

from rtdetr_cli.backends.onnx.half import exact_nodes, float_tensors, halve_file, to_half

DETECTOR = """<ir_version: 8, opset_import: ["" : 17], metadata_props: ["precision": "\\"fp32\\""]>
small (float[N,4,8,8] images, int64[N,2] sizes) => (float[N,6,2] boxes, float[N,6] scores) {
  features = Conv(images, weight)
  active = Relu(features)
  rows = Reshape(active, flat)
  content = LayerNormalization(rows, gain, gain)
  delta = MatMul(content, to_box)
  logit = Add(delta, anchors)
  reference = Sigmoid(logit)
  grid = Unsqueeze(reference, axis)
  sampled = GridSample(features, grid)
  flattened = Reshape(sampled, tall)
  mixed = MatMul(flattened, to_box_too)
  moved = Add(mixed, logit)
  fraction = Sigmoid(moved)
  sizes_float = Cast<to = 1>(sizes)
  whole = Unsqueeze(sizes_float, axis)
  boxes = Mul(fraction, whole)
  products = MatMul(content, to_score)
  scores = Squeeze(products, last)
}"""
CONSTANTS = {
    "weight": np.linspace(-1, 1, 6 * 4 * 64, dtype=np.float32).reshape(6, 4, 8, 8),
    "flat": np.array([-1, 6, 1]),
    "tall": np.array([-1, 6, 6]),
    "gain": np.ones(1, np.float32),
    "axis": np.array([1]),
    "last": np.array([2]),
    "anchors": np.linspace(-2, 2, 12, dtype=np.float32).reshape(6, 2),
    "to_box": np.ones((1, 2), np.float32),
    "to_box_too": np.ones((6, 2), np.float32),
    "to_score": np.ones((1, 1), np.float32),
}


def detector() -> onnx.ModelProto:
    return with_constants(DETECTOR, CONSTANTS)


def with_constants(text: str, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    model = parser.parse_model(text)
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    to_half(model, exact_nodes(model))
    checker.check_model(model, full_check=True)
    onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return model


def test_boxes_their_logits_and_sampling_locations_stay_float32():
    assert exact_nodes(detector()) == {
        *("logit", "reference", "grid", "sampled", "flattened"),
        *("moved", "fraction", "sizes_float", "whole", "boxes", "scores"),
    }


def test_distributions_of_boxes_stay_float32_and_attention_does_not():
    """Corners, softmax over the bins, expected distance; the softmax of attention is a border."""
    model = with_constants(
        """<ir_version: 8, opset_import: ["" : 17]>
        distributions (float[6,4] content, float[6,8] before) => (float[6,2] boxes) {
          scores = MatMul(content, to_scores)
          attention = Softmax(scores)
          mixed = MatMul(attention, content)
          added = MatMul(mixed, to_corners)
          corners = Add(added, before)
          edges = Reshape(corners, by_edge)
          bins = Softmax(edges)
          weighted = Mul(bins, values)
          boxes = ReduceSum<keepdims = 0>(weighted, last)
        }""",
        {
            "to_scores": np.ones((4, 6), np.float32),
            "to_corners": np.ones((4, 8), np.float32),
            "by_edge": np.array([-1, 2, 4]),
            "values": np.linspace(-1, 1, 4, dtype=np.float32),
            "last": np.array([2]),
        },
    )
    assert exact_nodes(model) == {"corners", "edges", "bins", "weighted", "boxes"}
    assert float_tensors(halved(model), 10) >= {"scores", "attention", "mixed", "added"}


def test_an_rms_norm_stays_float32():
    """Trained Atto squares to infinity in float16, which costs 0.011 of AP on coco128."""
    model = with_constants(
        """<ir_version: 8, opset_import: ["" : 17]>
        norm (float[6,4] content) => (float[6,4] y) {
          change = MatMul(content, mix)
          total = Add(content, change)
          square = Pow(total, two)
          mean = ReduceMean<axes = [-1]>(square)
          safe = Add(mean, tiny)
          root = Sqrt(safe)
          inverse = Reciprocal(root)
          unit = Mul(total, inverse)
          normed = Mul(unit, gain)
          hidden = MatMul(normed, mix)
          y = MatMul(hidden, mix)
        }""",
        {
            "mix": np.eye(4, dtype=np.float32),
            "two": np.array(2, np.float32),
            "tiny": np.array(1e-6, np.float32),
            "gain": np.ones(4, np.float32),
        },
    )
    norm = {"total", "square", "mean", "safe", "root", "inverse", "unit", "normed"}
    assert exact_nodes(model) == norm
    assert float_tensors(halved(model), 10) >= {"change", "hidden"}


def test_everything_else_becomes_float16():
    model = halved(detector())
    assert float_tensors(model, 10) >= {
        *("features", "active", "rows", "content", "delta", "mixed", "products"),
        *("weight_half", "gain_half", "to_box_half", "to_box_too_half", "to_score_half"),
    }
    weights = {one.name for one in model.graph.initializer}
    assert weights & CONSTANTS.keys() == {"flat", "tall", "axis", "last", "anchors"}
    signature = [*model.graph.input, *model.graph.output]
    assert [one.type.tensor_type.elem_type for one in signature] == [1, 7, 1, 1]


def test_a_tensor_is_cast_once_for_all_its_readers():
    model = halved(detector())
    casts = [node.input[0] for node in model.graph.node if node.op_type == "Cast"]
    assert sorted(casts) == [
        *("delta", "features", "flattened", "images", "mixed", "products", "sizes")
    ]


def test_interpolation_weights_stay_float32_until_the_product():
    model = with_constants(
        """<ir_version: 8, opset_import: ["" : 17]>
        gather (float[9] place, float[16,4] table) => (float[9,4] y) {
          product = MatMul(place, turn)
          places = Mul(product, size)
          values = MatMul(table, mix)
          low = Floor(places)
          share = Sub(places, low)
          weight = Unsqueeze(share, one)
          index = Cast<to = 7>(low)
          rows = Gather(values, index)
          weighted = Mul(rows, weight)
          y = MatMul(weighted, mix)
        }""",
        {
            "one": np.array([1]),
            "size": np.array(80, np.float32),
            "turn": np.eye(9, dtype=np.float32),
            "mix": np.eye(4, dtype=np.float32),
        },
    )
    assert exact_nodes(model) == {"places", "low", "share", "weight", "index"}
    assert float_tensors(halved(model), 10) >= {"product", "values", "rows", "weighted", "y_half"}


def test_scales_of_resize_stay_float32():
    model = with_constants(
        """<ir_version: 8, opset_import: ["" : 17]>
        up (float[1,2,4,4] x) => (float[1,2,8,8] y) {
          inside = Relu(x)
          larger = Resize(inside, , scales)
          features = Conv(larger, weight)
          y = Relu(features)
        }""",
        {
            "scales": np.array([1, 1, 2, 2], np.float32),
            "weight": np.ones((2, 2, 1, 1), np.float32),
        },
    )
    to_half(model, {"y"})
    checker.check_model(model, full_check=True)
    assert float_tensors(model, 10) >= {"inside", "larger", "features"}
    assert "scales" in float_tensors(model)


@pytest.mark.parametrize(("value", "is_half"), [(65504.0, True), (65505.0, False)])
def test_a_node_with_a_constant_beyond_float16_stays_float32(value, is_half):
    model = with_constants(
        """<ir_version: 8, opset_import: ["" : 17]>
        mask (float[2,2] x) => (float[2,2] y) {
          w = MatMul(x, one)
          z = Add(w, large)
          y = MatMul(z, one)
        }""",
        {"large": np.array([[value], [-value]], np.float32), "one": np.eye(2, dtype=np.float32)},
    )
    assert ("z" in float_tensors(halved(model), 10)) == is_half


def test_the_metadata_records_fp16(tmp_path: Path):
    path = tmp_path / "small.onnx"
    onnx.save(detector(), path)
    size = path.stat().st_size
    nodes = halve_file(path)
    model = onnx.load(path)
    assert nodes == len(model.graph.node) == len(detector().graph.node) + 6
    assert path.stat().st_size < 0.75 * size
    notes = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert notes == {"precision": "fp16"}
