"""Emulated float16, compared with NumPy's float16, which rounds after every operation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper, parser

from rtdetr_cli.backends.onnx.detector import OnnxDetector
from rtdetr_cli.backends.onnx.half import exact_nodes, to_half
from rtdetr_cli.backends.onnx.half_on_cpu import Magnitude, RoundingDetector
from rtdetr_cli.engine.exporting.images import find_images
from rtdetr_cli.engine.exporting.verdict import run_detector

TOY = """<ir_version: 8, opset_import: ["" : 17]>
toy (float[N,3,4,4] images, int64[N,2] orig_target_sizes)
    => (int64[N,48] labels, float[N,48,4] boxes, float[N,48] scores) {
  flat = Constant<value = int64[2] {-1, 48}>()
  two = Constant<value = int64[1] {2}>()
  four = Constant<value = int64[1] {4}>()
  pixels = Reshape(images, flat)
  half = Cast<to = 10>(pixels)
  BODY
  scores = Cast<to = 1>(last)
  none = Sub(scores, scores)
  labels = Cast<to = 7>(none)
  column = Unsqueeze(none, two)
  boxes = Concat<axis = 2>(column, column, column, column)
}"""


def scores(tmp_path: Path, body: str, images: torch.Tensor, **constants: np.ndarray):
    """Scores of the rounding and of the plain detector, and the former itself."""
    model = parser.parse_model(TOY.replace("BODY", body))
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    path = tmp_path / "toy.onnx"
    onnx.save(model, path)
    sizes = np.full((len(images), 2), 4, np.int64)
    feed = {"images": images.numpy(), "orig_target_sizes": sizes}
    rounding, plain = RoundingDetector(path, "cpu"), OnnxDetector(path, "cpu")
    # Not with detect(), which drops invalid scores.
    return rounding._run(feed)[2], plain._run(feed)[2], rounding


def test_overflows_are_infinite_and_reported(tmp_path):
    images = torch.full((1, 3, 4, 4), 300.0)
    rounded, plain, detector = scores(tmp_path, "last = Mul(half, half)", images)
    assert np.isinf(rounded).all()
    assert (plain == 90000).all()  # the reason for this detector
    assert detector.overflows == [Magnitude("last", 90000.0)]
    assert detector.description == f"toy.onnx, {detector.description[10:]}"
    assert "every float16 rounded" in detector.description


@pytest.mark.parametrize(("value", "overflows"), [(65519.0, False), (65520.0, True)])
def test_only_values_that_round_to_infinity_overflow(value, overflows):
    with np.errstate(over="ignore"):
        assert np.isinf(np.float16(np.float32(value))) == overflows
    assert Magnitude("x", value).overflows == overflows


def test_every_result_is_rounded_as_in_numpy(tmp_path):
    images = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 40
    body = """
    a = Mul(half, factor)
    b = Add(a, half)
    c = Reshape(b, flat)
    d = Div(c, factor)
    last = Sub(d, b)"""
    factor = np.linspace(0.1, 9, 48, dtype=np.float16)
    rounded, plain, _ = scores(tmp_path, body, images, factor=factor)
    half = images.reshape(5, 48).numpy().astype(np.float16)
    summed = half * factor + half
    expected = summed / factor - summed
    assert expected.dtype == np.float16
    np.testing.assert_array_equal(rounded, expected.astype(np.float32))
    assert (rounded != plain).mean() > 0.5


def test_a_decomposed_norm_overflows_and_the_operator_does_not(tmp_path):
    images = torch.linspace(-400, 400, 48).reshape(1, 3, 4, 4)
    spelled = """
    squares = Mul(half, half)
    mean = ReduceMean<axes = [1]>(squares)
    root = Sqrt(mean)
    last = Div(half, root)"""
    rounded, _, detector = scores(tmp_path, spelled, images)
    assert not rounded.any()  # everything was divided by infinity
    assert {one.node for one in detector.overflows} == {"squares", "mean", "root"}
    gain = np.ones(48, np.float16)
    body = "last = LayerNormalization(half, gain)"
    rounded, _, detector = scores(tmp_path, body, images, gain=gain)
    assert detector.overflows == []
    np.testing.assert_allclose(rounded.std(), 1, atol=1e-3)


def test_magnitudes_cover_all_images(tmp_path):
    images = torch.tensor([3.0, 20.0, 7.0])[:, None, None, None].expand(3, 3, 4, 4)
    _, _, detector = scores(tmp_path, "last = Mul(half, half)", images)
    assert detector.magnitudes == [Magnitude("last", 400.0), Magnitude("half", 20.0)]
    detector.detect(images[:1], [(4, 4)])
    assert detector.magnitudes[0].value == 400.0


@pytest.mark.slow
def test_the_overflow_of_a_real_model_is_found(shared_data, tmp_path):
    """DEIMv2 decomposes its norms: Pow reaches 60516 on these images and overflows on others."""
    model = onnx.load(shared_data / "weights" / "deimv2_hgnetv2_atto_coco.onnx")
    without_norms = {name for name in exact_nodes(model) if "norm" not in name}
    to_half(model, without_norms)
    path = tmp_path / "half.onnx"
    onnx.save(model, path)
    detector = RoundingDetector(path, "cpu")
    run_detector(
        detector, find_images(str(shared_data / "coco8" / "data.yaml")), detector.preprocessing
    )
    largest = detector.magnitudes[0]
    assert largest.node.endswith("norm1/Pow")
    assert largest.value == pytest.approx(60516, rel=0.01)


def test_the_norms_of_a_real_model_stay_float32(shared_data):
    model = onnx.load(shared_data / "weights" / "deimv2_hgnetv2_atto_coco.onnx")
    nodes = model.graph.node
    squares = {node.output[0] for node in nodes if node.name.endswith("norm1/Pow")}
    assert len(squares) == 3
    assert squares <= exact_nodes(model)
