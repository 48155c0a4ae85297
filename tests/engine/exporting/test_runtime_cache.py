"""The runtime cache: files are written once, reused, and never used if they were wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import parser

from rtdetr_cli import RTDETR
from rtdetr_cli.backends.onnx.detector import OnnxDetector
from rtdetr_cli.backends.torch import TorchDetector
from rtdetr_cli.cli.main import run
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.config.settings.val import ValSettings
from rtdetr_cli.core.errors import BackendError, UsageError
from rtdetr_cli.core.files import rtdetr_home
from rtdetr_cli.engine.exporting import runtime_cache as module
from rtdetr_cli.engine.exporting.runtime_cache import KEPT, Runtime, deployed_file, open_detector
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint

ONNX = Runtime("onnx", half=False)
WRITTEN = """<ir_version: 8, opset_import: ["" : 17]>
written (float[N,3,64,64] images, int64[N,2] orig_target_sizes)
    => (int64[N,R] labels, float[N,R,4] boxes, float[N,R] scores) {
  one = Constant<value = int64[1] {1}>()
  mean = ReduceMean<axes = [1, 2, 3], keepdims = 0>(images)
  scores = Unsqueeze(mean, one)
  low = Floor(scores)
  labels = Cast<to = 7>(low)
  sizes = Cast<to = 1>(orig_target_sizes)
  corners = Concat<axis = 1>(sizes, sizes)
  boxes = Unsqueeze(corners, one)
}"""


@pytest.fixture
def weights(tiny_config, tmp_path: Path, monkeypatch) -> Path:
    """A tiny checkpoint, beside an empty home."""
    monkeypatch.setenv("RTDETR_HOME", str(tmp_path / "home"))
    torch.manual_seed(0)
    network = RTDETRNetwork(tiny_config, num_classes=2)
    path = tmp_path / "tiny.pt"
    save_checkpoint(path, Checkpoint(tiny_config, {0: "green", 1: "red"}, network.state_dict()))
    return path


@pytest.fixture
def exports(monkeypatch) -> list[Path]:
    """Paths exported; a small graph replaces the real one, because tracing is slow."""
    done: list[Path] = []

    def write(settings) -> Path:
        path = Path(settings.output)
        onnx.save(parser.parse_model(WRITTEN), path)
        done.append(path)
        return path

    monkeypatch.setattr(module, "_export", write)
    return done


def keys(weights: Path, **more: object) -> PredictSettings:
    return PredictSettings(model=str(weights), source="x", **{"device": "cpu", **more})


def test_a_file_is_written_once_per_choice_that_changes_outputs(weights, exports):
    assert isinstance(open_detector(keys(weights, backend="onnx")), OnnxDetector)
    open_detector(keys(weights, backend="onnx", conf=0.7, max_det=3))
    assert len(exports) == 1
    for more in ({"imgsz": 96}, {"decoder_layers": 2}, {"num_queries": 5}):
        open_detector(keys(weights, backend="onnx", **more))
    assert len({path.parent for path in exports}) == 4
    weights.write_bytes(weights.read_bytes() + b"\0")
    deployed_file(keys(weights, backend="onnx"), ONNX)
    assert len({path.parent for path in exports}) == 5
    assert exports[0].parents[1] == rtdetr_home() / "deployed"


def test_the_least_recently_used_file_is_removed(weights, exports):
    for number in range(KEPT):
        path = deployed_file(keys(weights, num_queries=number + 1), ONNX)
        os.utime(path.parent, (number, number))
    first, second = exports[:2]
    deployed_file(keys(weights, num_queries=1), ONNX)  # in use again
    deployed_file(keys(weights, num_queries=99), ONNX)
    assert first.is_file()
    assert not second.parent.exists()
    assert len(exports) == KEPT + 1


def test_a_prediction_keeps_the_weights_it_runs_only(weights):
    """The fused network has fewer tensors; validation keeps those of the file for calibration."""
    file = torch.load(weights, weights_only=True)["weights"]
    predicting = open_detector(PredictSettings(model=str(weights), source="a.jpg", device="cpu"))
    validating = open_detector(ValSettings(model=str(weights), device="cpu"))
    assert predicting.network is predicting._runner
    assert len(predicting.network.state_dict()) < len(file)
    assert validating.network.state_dict().keys() == file.keys()
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    one, other = (d.detect(images, [(64, 64)])[0] for d in (predicting, validating))
    assert one.boxes_xyxy.tolist() == other.boxes_xyxy.tolist()
    assert one.scores.tolist() == other.scores.tolist()


def test_a_file_whose_outputs_differed_is_not_written_again(weights, monkeypatch):
    calls = []

    def fail(settings) -> Path:
        calls.append(settings)
        Path(settings.output).with_name("model.failed.onnx").touch()
        raise BackendError("outputs differ from PyTorch: 12 lost")

    monkeypatch.setattr(module, "_export", fail)
    for sentence in ("12 lost", "differed from PyTorch when it was written"):
        with pytest.raises(BackendError, match=sentence):
            open_detector(keys(weights, backend="onnx"))
    assert len(calls) == 1


def test_auto_continues_with_the_next_runtime_after_a_failure(
    weights, monkeypatch, capsys, set_cpu
):
    def fail(settings) -> Path:
        raise BackendError("12 lost")

    monkeypatch.setattr(module, "_export", fail)
    set_cpu("avx2")
    monkeypatch.setattr(module, "find_spec", lambda name: name == "onnxruntime" or None)
    detector = open_detector(keys(weights, backend="auto"))
    assert isinstance(detector, TorchDetector)
    assert detector.description.endswith("cpu")
    assert "backend=auto continues without onnx: 12 lost" in " ".join(
        capsys.readouterr().err.split()
    )


def test_auto_without_openvino_takes_bfloat16_where_the_cpu_has_it(
    weights, exports, monkeypatch, set_cpu
):
    monkeypatch.setattr(module, "find_spec", lambda name: name != "openvino" or None)
    for has_bf16, kind in ((True, TorchDetector), (False, OnnxDetector)):
        set_cpu("avx2", *(["avx512_bf16"] if has_bf16 else []))
        detector = open_detector(keys(weights, backend="auto"))
        assert isinstance(detector, kind)
        assert detector.description.endswith("bf16") == has_bf16


def test_other_devices_stay_with_pytorch(weights, exports, monkeypatch):
    monkeypatch.setattr(module, "_is_cpu", lambda device: False)
    assert isinstance(open_detector(keys(weights, backend="auto")), TorchDetector)
    with pytest.raises(UsageError, match="backend=onnx runs on the CPU; give device=cpu"):
        open_detector(keys(weights, backend="onnx"))
    assert not exports


def test_a_runtime_that_is_not_installed_is_one_sentence(weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        BackendError, match=r'not installed; pip install "rtdetr-cli\[onnx,openvino\]"'
    ):
        open_detector(keys(weights, backend="openvino"))


def test_one_object_runs_in_either_runtime(weights, exports):
    pixels = torch.full((1, 3, 64, 64), 0.5)
    model = RTDETR(weights, device="cpu")
    written = model(pixels, backend="onnx", imgsz=64)[0]
    assert written.boxes.conf.tolist() == pytest.approx([0.5], abs=0.01)
    assert len(model(pixels, imgsz=64, conf=0)[0].boxes) == 40
    assert len(exports) == 1


@pytest.mark.slow
def test_the_command_writes_once_and_equals_pytorch(weights, squares, tmp_path, capsys):
    words = [f"model={weights}", f"data={squares / 'data.yaml'}", "imgsz=64", "workers=0"]
    words += ["plots=false", "device=cpu", "num_queries=10", "backend=onnx"]
    logs = []
    for _ in range(2):
        assert run(["val", *words]) == 0
        logs.append(capsys.readouterr().err)
    assert ["writing" in one for one in logs] == [True, False]
    assert all("model.onnx, ONNX Runtime" in one for one in logs)
    images = torch.rand(2, 3, 64, 64)
    same = {"imgsz": 64, "num_queries": 10}
    pair = [open_detector(keys(weights, backend=name, **same)) for name in ("torch", "onnx")]
    ours, theirs = (detector.detect(images, [(50, 70)] * 2)[0] for detector in pair)
    assert len(ours) == len(theirs) == 20
    np.testing.assert_allclose(theirs.scores, ours.scores, rtol=0, atol=1e-5)
    np.testing.assert_allclose(theirs.boxes_xyxy, ours.boxes_xyxy, rtol=0, atol=1e-2)
