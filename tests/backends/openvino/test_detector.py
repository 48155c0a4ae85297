"""OpenVINO folders, written from ONNX as text: inputs and outputs, errors, float32 in bf16.

tests/engine/exporting/test_openvino.py exports a traced network.
"""

from __future__ import annotations

import importlib.metadata
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import parser

from rtdetr_cli.backends.load import load_detector
from rtdetr_cli.backends.openvino.detector import OpenVINODetector, graph_file, write_openvino
from rtdetr_cli.core.cpu import cpu_features
from rtdetr_cli.core.errors import BackendError, UsageError, WeightsError

pytest.importorskip("openvino", reason="openvino is not installed: rtdetr-cli[openvino]")

SAMPLER = """<ir_version: 8, opset_import: ["" : 17]>
sampler (float[N,3,8,8] images, int64[N,2] orig_target_sizes)
    => (float[N,3,2,2] last) {
  half = Constant<value = float {0.5}>()
  conv_out = Conv<kernel_shape = [1, 1]>(images, weight, bias)
  relu_out = Relu(conv_out)
  pooled = MaxPool<kernel_shape = [4, 4], strides = [4, 4]>(relu_out)
  second = Conv<kernel_shape = [1, 1]>(pooled, weight_2)
  grid_raw = Transpose<perm = [0, 2, 3, 1]>(second)
  grid_scaled = Mul(grid_raw, grid_raw)
  grid = Sub(grid_scaled, half)
  sampled = GridSample<align_corners = 0, mode = "bilinear">(relu_out, grid)
  last = Conv<kernel_shape = [1, 1]>(sampled, weight)
}"""
"""It ends in a product: the runtime itself keeps everything after the last product float32."""


def make(folder: Path, text: str, half: bool = False, **arrays: np.ndarray) -> Path:
    model = parser.parse_model(text)
    for name, array in arrays.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    notes = {"rtdetr_format": 1, "names": {str(n): f"class {n}" for n in range(101)}}
    notes["preprocessing"] = {"size_hw": [32, 64], "antialias": False}
    for key, value in notes.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    path = folder.with_suffix(".onnx")
    onnx.save(model, path)
    folder.mkdir()
    write_openvino(folder, path, half)
    return folder


@pytest.fixture
def toy(tmp_path: Path, toy_graph: str) -> Path:
    return make(tmp_path / "toy_openvino_model", toy_graph)


def gray(*percents: int) -> torch.Tensor:
    """25, 50 and 75 % are sums of powers of two: their mean is exact in any order of addition."""
    return torch.stack([torch.full((3, 32, 64), percent / 100) for percent in percents])


def test_a_folder_and_its_xml_detect_in_every_batch_size(toy):
    assert sorted(file.name for file in toy.iterdir()) == ["metadata.json", "toy.bin", "toy.xml"]
    for path in (f"{toy}/", str(toy / "toy.xml")):
        detector = load_detector(path, device="cpu")
        assert detector.names[11] == "class 11"
        assert not detector.preprocessing.antialias
        for count in (1, 3):
            sizes_hw = [(10 * n, n) for n in range(1, count + 1)]
            found = detector.detect(gray(25, 50, 75)[:count], sizes_hw, max_det=1)
            assert [one.labels.tolist() for one in found] == [[25], [50], [75]][:count]
            assert found[0].boxes_xyxy.tolist() == [[1, 10, 1, 10]]
            assert found[-1].scores.item() == pytest.approx(0.25 * count, abs=1e-6)
    assert detector.detect(gray(3)[:0], []) == []


def test_a_graph_of_ours_with_free_sides_is_refused(tmp_path, toy_graph):
    """OpenVINO 2026.4 computes images after one of 32x32 wrong, scores by up to 0.008."""
    folder = make(tmp_path / "toy_openvino_model", toy_graph.replace("32,64", "height,width"))
    with pytest.raises(WeightsError, match="images with fixed sides"):
        OpenVINODetector(folder)


def test_float32_is_requested_because_newer_cpus_default_to_bf16(toy, tmp_path):
    detector = OpenVINODetector(toy)
    hint = detector._compiled.get_property("INFERENCE_PRECISION_HINT")
    assert hint.get_type_name() == "f32"
    assert "CPU, float32" in detector.description
    notes = json.loads((toy / "metadata.json").read_text())
    assert (notes["precision"], notes["floats"]) == ("fp32", "f32")


def test_the_graph_describes_its_preprocessing_for_other_tools(toy):
    from rtdetr_cli.backends.openvino.package import openvino_package

    entries = openvino_package().Core().read_model(toy / "toy.xml").get_rt_info("model_info")
    assert entries["resize_type"] == "standard"  # stretched, not padded
    assert (entries["scale_values"], entries["reverse_input_channels"]) == ("255", "True")
    assert entries["labels"].split(" ")[2] == "class_2"


def test_weights_are_written_as_float32(tmp_path):
    weights = {
        "weight": np.full((3, 3, 1, 1), 1 / 3, np.float32),
        "bias": np.zeros(3, np.float32),
        "weight_2": np.full((2, 3, 1, 1), 1 / 3, np.float32),
    }
    folder = make(tmp_path / "x_openvino_model", SAMPLER, **weights)
    assert np.float32(1 / 3).tobytes() in (folder / "x.bin").read_bytes()


def test_first_convolution_and_sampling_locations_stay_float32_in_bf16(tmp_path):
    from rtdetr_cli.backends.openvino.package import openvino_package

    weights = {
        "weight": np.random.default_rng(0).normal(size=(3, 3, 1, 1)).astype(np.float32),
        "bias": np.ones(3, np.float32),
        "weight_2": np.full((2, 3, 1, 1), 0.1, np.float32),
    }
    folder = make(tmp_path / "x_openvino_model", SAMPLER, half=True, **weights)
    core = openvino_package().Core()
    # ONEDNN_MAX_CPU_ISA takes the kernels away, not the entry in OpenVINO's list.
    is_listed = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if not (is_listed and cpu_features().avx512):
        pytest.skip("this CPU has no bf16")
    compiled = core.compile_model(folder / "x.xml", "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    kinds: dict[str, list[str]] = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        notes = node.get_rt_info()
        kind, precision = (notes[key].astype(str) for key in ("layerType", "runtimePrecision"))
        kinds.setdefault(kind, []).append(precision)
    assert kinds["Convolution"] == ["f32", "bf16", "bf16"]
    assert set(kinds["Eltwise"]) == {"f32"}  # the grid


def test_a_folder_of_ultralytics_opens(tmp_path):
    import openvino
    from openvino import opset13 as operators

    folder = tmp_path / "theirs_openvino_model"
    folder.mkdir()
    images = operators.parameter([1, 3, 32, 64], openvino.Type.f32, name="x")
    images.output(0).set_names({"x"})
    rows = np.zeros((1, 5, 7), np.float32)
    rows[0, 2] = [0.5, 0.5, 0.2, 0.4, 0.1, 0.8, 0.3]
    zero = operators.multiply(
        operators.reduce_mean(images, operators.constant([1, 2, 3]), keep_dims=False),
        operators.constant(np.float32(1e-9)),
    )
    output = operators.add(operators.constant(rows), zero)
    model = openvino.Model([output], [images], "x")
    openvino.save_model(model, folder / "theirs.xml", compress_to_fp16=False)
    notes = "names: {0: a, 1: b, 2: c}\nimgsz: [32, 64]\n"
    (folder / "metadata.yaml").write_text(notes)
    detector = load_detector(str(folder))
    assert detector.names == {0: "a", 1: "b", 2: "c"}
    assert "Ultralytics" in detector.description
    assert detector.notes is None
    (found,) = detector.detect(torch.rand(1, 3, 32, 64), [(100, 200)], max_det=1)
    assert (found.labels.tolist(), found.scores.tolist()) == ([1], pytest.approx([0.8]))
    assert found.boxes_xyxy.tolist() == [pytest.approx([80, 30, 120, 70], abs=0.1)]


def test_an_unknown_contract_is_rejected_with_its_inputs(tmp_path, toy_graph):
    text = toy_graph.replace("labels", "output0")
    with pytest.raises(
        WeightsError, match=r"x_openvino_model has inputs images tensor\(float\)\['\?'"
    ):
        OpenVINODetector(make(tmp_path / "x_openvino_model", text))


def test_damaged_folders_are_one_sentence(toy):
    notes = toy / "metadata.json"
    notes.write_text(json.dumps({"rtdetr_format": 2}))
    with pytest.raises(WeightsError, match="format version 2; this rtdetr reads 1"):
        OpenVINODetector(toy)
    notes.write_text("{")
    with pytest.raises(WeightsError, match="damaged metadata"):
        OpenVINODetector(toy)
    notes.unlink()
    (toy / "toy.xml").write_text("no graph at all")
    with pytest.raises(WeightsError, match=r"toy\.xml cannot be opened by OpenVINO") as caught:
        OpenVINODetector(toy)
    assert "\n" not in str(caught.value)
    (toy / "toy.bin").unlink()
    with pytest.raises(WeightsError, match=r"toy\.bin is not beside"):
        graph_file(toy)
    (toy / "toy.xml").unlink()
    with pytest.raises(WeightsError, match=r"one \.xml of OpenVINO, found 0"):
        graph_file(toy)


def test_unsupported_settings_are_rejected(toy):
    with pytest.raises(UsageError, match="fixed inside"):
        load_detector(str(toy), decoder_layers=2)
    with pytest.raises(BackendError, match="mps"):
        OpenVINODetector(toy, "mps")


def test_a_missing_package_is_reported_with_the_pip_command(toy, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendError, match=r"pip install \"rtdetr-cli\[onnx,openvino\]\""):
        OpenVINODetector(toy)


SILENT = """
import socket, sys, threading

def refuse(*_, **__):
    print("NETWORK")
    raise OSError("no network")

socket.socket.connect = socket.getaddrinfo = refuse
from rtdetr_cli.backends.openvino.package import needs_openvino_extra, openvino_package

openvino_package()
with needs_openvino_extra():
    import nncf
from nncf.telemetry import telemetry

telemetry.start_session("nncf")
telemetry.send_event("nncf", "a", "b")
print("reporter", sys.modules["openvino_telemetry"], type(telemetry).__name__)
print("threads", threading.active_count())
"""


def test_no_telemetry_is_sent(tmp_path):
    """In a separate process: under pytest NNCF sends nothing anyway."""
    pytest.importorskip("nncf", reason="nncf is not installed: rtdetr-cli[openvino]")
    assert importlib.metadata.version("openvino-telemetry")  # pip installs it
    environment = {"HOME": str(tmp_path), "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SILENT],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=Path(__file__).parents[3],
    )
    lines = done.stdout.splitlines()
    assert lines[-2:] == ["reporter None MagicMock", "threads 1"]
    assert "NETWORK" not in lines
    assert not (tmp_path / "intel").exists()  # where the telemetry package stores consent and id


STACKS = """
import ctypes, sys
import torch
from rtdetr_cli.backends.load import load_detector

def stack():
    found = ctypes.create_string_buffer(24)
    ctypes.CDLL(None).sigaltstack(None, found)
    return found.raw

before = stack()
detector = load_detector(sys.argv[1])
assert stack() == before, "after opening"
detector.detect(torch.zeros(1, 3, 32, 64), [(32, 64)])
assert stack() == before, "after a call"
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sigaltstack of Linux")
def test_the_signal_stack_is_restored(toy):
    """The 20 kB stack that OpenVINO sets on CPUs with AMX overflows in signal handlers."""
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", STACKS, str(toy)], check=True, cwd=root)


def test_a_copy_opens_the_folder_again(toy):
    detector = OpenVINODetector(toy, "cpu", timeout=60)
    other = pickle.loads(pickle.dumps(detector))
    assert other.description == detector.description
    images = torch.full((1, 3, 32, 64), 0.3)
    ours, theirs = (one.detect(images, [(4, 5)])[0] for one in (detector, other))
    assert ours.labels.tolist() == theirs.labels.tolist() == [30]
