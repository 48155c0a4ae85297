"""Every rule of TensorRT's parser with a graph that breaks it, and a graph that breaks none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from rtdetr_cli.backends.tensorrt.rules import check_for_tensorrt, find_faults
from rtdetr_cli.core.errors import BackendError

GOOD = """<ir_version: 9, opset_import: ["" : 17]>
good (float[N,3,8,8] images, float[N,5,5,2] grid, float[N,3,2,8,8] volume, float[N,5,5,5,3] points,
      int64[1] count, float step, uint8[N,3,8,8] pixels)
    => (float[N,300] best, int64[N,300] labels, float[N,5,5] mean, float[N,3,8,8] colours) {
  k = Constant<value = int64[1] {300}>()
  eighty = Constant<value = int64 {80}>()
  flat = Constant<value = int64[2] {0, -1}>()
  scale = Constant<value = float {0.02}>()
  zero = Constant<value = int8 {0}>()
  scales = Constant<value = float[4] {1.0, 1.0, 2.0, 2.0}>()
  quantized = QuantizeLinear(images, scale, zero)
  again = DequantizeLinear(quantized, scale, zero)
  large = Resize<mode = "nearest", nearest_mode = "floor",
      coordinate_transformation_mode = "asymmetric">(again, , scales)
  rows = Reshape(large, flat)
  best, places = TopK<axis = 1, sorted = 1>(rows, k)
  queries = Div(places, eighty)
  first = Mul(queries, eighty)
  labels = Sub(places, first)
  sampled = GridSample<mode = "bilinear">(large, grid)
  half = Cast<to = 10>(sampled)
  sum = Add(half, half)
  exact = Cast<to = 1>(sum)
  third = ReduceMean<axes = [1], keepdims = 0>(exact)
  mean = Sigmoid(third)
  colours = Cast<to = 1>(pixels)
}"""


def test_a_valid_graph_has_no_faults():
    assert find_faults(parser.parse_model(GOOD)) == []


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("Sigmoid(third)", "Bernoulli(third)", "Bernoulli is not supported by its parser"),
        ('"" : 17', '"" : 20', "opset 20, at most 19 is read correctly"),
        ('"" : 17', '"" : 17, "com.microsoft" : 1', "operator set com.microsoft"),
        ('"bilinear"', '"bicubic"', "GridSample sampled: mode=bicubic"),
        ("(large, grid)", "(volume, points)", "GridSample sampled: supports 4 dimensions, not 5"),
        ("{300}", "{3840}", "TopK best: k=3840, must be less than 3840"),
        ("(rows, k)", "(rows, count)", "TopK best: count is not a constant"),
        ("sorted = 1", "sorted = 0", "TopK best: sorted=0"),
        ('"nearest",', '"cubic",', "Resize large: mode=cubic"),
        ('"asymmetric"', '"tf_crop_and_resize"', "coordinate_transformation_mode=tf_crop"),
        ('"floor"', '"simple"', "Resize large: nearest_mode=simple"),
        ("int8 {0}", "int8 {3}", "QuantizeLinear quantized: a zero point that is not 0"),
        ("int8 {0}", "uint8 {0}", "QuantizeLinear quantized: uint8 instead of int8"),
        ("{0.02}", "{-0.02}", "a scale that is not positive"),
        ("(images, scale, zero)", "(images, step, zero)", "its scale step is not a constant"),
        ("Cast<to = 10>(sampled)", "Cast<to = 11>(sampled)", "Add sum: does not support double"),
        ("Add(half, half)", "Add(half, sampled)", "inputs of different types (float16, float)"),
        ("Sub(places, first)", "And(places, first)", "And labels: does not support int64"),
        ("Mul(queries, eighty)", "Relu(queries)", "Relu first: does not support int64"),
        ("Reshape(large, flat)", "NonZero(large)", "NonZero: shapes that depend on the data"),
        ("Cast<to = 1>(pixels)", "Floor(pixels)", "Floor colours: does not support uint8"),
        ("Cast<to = 10>(sampled)", "Cast<to = 2>(sampled)", "half is uint8, which only input"),
    ],
)
def test_a_planted_fault_is_reported(before, after, fault):
    assert GOOD.count(before) == 1
    found = find_faults(parser.parse_model(GOOD.replace(before, after)))
    assert any(fault in one for one in found), found


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_a_constant_that_is_not_finite_is_reported(value, kind):
    model = parser.parse_model(GOOD)
    constant = np.array([0, value], kind)
    model.graph.initializer.append(numpy_helper.from_array(constant, "anchors"))
    assert find_faults(model) == ["constant anchors is not finite"]


def test_the_message_lists_at_most_three_faults(tmp_path: Path):
    text = GOOD.replace("{300}", "{5000}").replace("bilinear", "bicubic").replace("floor", "simple")
    path = tmp_path / "bad.onnx"
    onnx.save(parser.parse_model(text.replace("{0.02}", "{0.0}")), path)
    with pytest.raises(
        BackendError, match=r"cannot read bad\.onnx: .*; .*; .* and 2 more"
    ) as caught:
        check_for_tensorrt(path)
    assert str(caught.value).count("\n") == 0
    onnx.save(parser.parse_model(GOOD), path)
    check_for_tensorrt(path)
