"""Options of the graph, written and read back; slow because of tracing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from rtdetr_cli.backends.load import preprocessing_for
from rtdetr_cli.backends.onnx.detector import OnnxDetector
from rtdetr_cli.backends.onnx.graph import GraphOptions
from rtdetr_cli.backends.onnx.writer import write_onnx
from rtdetr_cli.backends.torch import TorchDetector
from rtdetr_cli.config.model import ModelConfig, Preprocessing
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

pytestmark = pytest.mark.slow
NAMES = {0: "green", 1: "red"}
PREPROCESSING = Preprocessing((64, 96), False)
SIZES_HW = [(480, 640), (100, 50), (33, 77)]


def make_network(config: ModelConfig) -> RTDETRNetwork:
    """Random weights whose outputs depend on the image, unlike those of a new network."""
    torch.manual_seed(1)
    network = RTDETRNetwork(config, len(NAMES)).eval()
    network.set_speed(1, 15)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return network


def write(path: Path, network: nn.Module, **options: object) -> OnnxDetector:
    write_onnx(path, network, NAMES, PREPROCESSING, GraphOptions(**options))
    return OnnxDetector(path, "cpu")


def assert_agree(network: RTDETRNetwork, detector: OnnxDetector, size_hw: tuple[int, int]) -> None:
    """Compare on uint8 values, for one image and for three."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 3, *size_hw), generator=generator) / 255
    reference = TorchDetector(network, NAMES, PREPROCESSING, torch.device("cpu"), fused=False)
    expected = reference.detect(images, SIZES_HW)
    for count in (1, 3):
        found = detector.detect(images[:count], SIZES_HW[:count])
        for ours, theirs in zip(expected, found, strict=False):
            torch.testing.assert_close(theirs.scores, ours.scores, atol=1e-5, rtol=0)
            torch.testing.assert_close(theirs.boxes_xyxy, ours.boxes_xyxy, atol=1e-2, rtol=0)
            assert theirs.labels.tolist() == ours.labels.tolist()


def test_free_sides_uint8_and_gather(tiny_config, tmp_path):
    network, path = make_network(tiny_config), tmp_path / "x.onnx"
    detector = write(path, network, dynamic=True, input="uint8", sampler="gather")
    assert detector.size_is_free
    assert detector.takes_bytes
    assert detector.preprocessing == PREPROCESSING
    for size_hw in ((64, 96), (96, 64), (128, 160)):
        assert preprocessing_for(detector, size_hw).size_hw == size_hw
        assert_agree(network, detector, size_hw)
    graph = onnx.load(path).graph
    sides = [dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    assert sides == ["batch", "height", "width", 3]
    assert "GridSample" not in {node.op_type for node in graph.node}
    assert (detector.notes.sampler, detector.notes.dynamic) == ("gather", True)
    assert detector.notes.preprocessing.input == "RGB"


@pytest.mark.parametrize("postprocess", [True, False])
def test_free_sides_with_fewer_cells_than_queries(tiny_config, tmp_path, postprocess):
    """32x32 has 21 cells, 64x96 has 126 and 320x320 has 2100: 16 + 4 + 1 for each 32x32."""
    decoder = replace(tiny_config.decoder, num_queries=300)
    network, path = make_network(replace(tiny_config, decoder=decoder)), tmp_path / "x.onnx"
    network.set_speed(2, 300)
    detector = write(path, network, dynamic=True, postprocess=postprocess)
    for size_hw in ((320, 320), (32, 32), (64, 96), (96, 32), (128, 160)):
        assert_agree(network, detector, size_hw)
    rows = {dim.dim_param for dim in onnx.load(path).graph.output[0].type.tensor_type.shape.dim}
    assert rows <= {"batch", "rows", ""}
    assert_openvino_agrees(path, ((320, 320), (32, 64), (64, 96), (128, 160)))


def assert_openvino_agrees(path: Path, sizes_hw: tuple[tuple[int, int], ...]) -> None:
    """Compare values with ONNX Runtime, both on the file; the order of equal scores is free."""
    openvino = pytest.importorskip("openvino")
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", exact)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for size_hw in sizes_hw:
        feed = {"images": np.random.default_rng(0).random((2, 3, *size_hw), np.float32)}
        if len(session.get_inputs()) == 2:
            feed["orig_target_sizes"] = np.array([size_hw[::-1]] * 2)
        for ours, theirs in zip(session.run(None, feed), compiled(feed).values(), strict=True):
            np.testing.assert_allclose(*map(np.sort, (theirs.ravel(), ours.ravel())), atol=1e-3)


def test_a_fixed_batch_without_postprocessing(tiny_config, tmp_path):
    network, path = make_network(tiny_config), tmp_path / "x.onnx"
    detector = write(path, network, batch=2, postprocess=False)
    assert_agree(network, detector, PREPROCESSING.size_hw)
    graph = onnx.load(path).graph
    signature = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert signature == {
        "images": [2, 3, 64, 96],
        "logits": [2, 15, 2],
        "boxes": [2, 15, 4],
    }
    operators = [node.op_type for node in graph.node]
    assert not set(operators) & {"Shape", "Expand", "Pad", "Range", "Where"}
    assert operators.count("TopK") == 1


def test_gelu_opens_in_opencv_and_is_one_operator_in_onnx_runtime(tiny_config, tmp_path):
    """OpenCV 5.0 ends with a segmentation fault on x (0.5 (1 + erf)); hence the process."""
    path, optimized = tmp_path / "x.onnx", tmp_path / "optimized.onnx"
    write(path, make_network(tiny_config), batch=1)
    script = f"import cv2; cv2.dnn.readNetFromONNX({str(path)!r})"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(optimized)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(optimized).graph.node]
    assert (operators.count("Gelu"), operators.count("Erf")) == (1, 0)
