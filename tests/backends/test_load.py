"""Open detectors in any runtime; `timeout` stops graphs where the runtime allows it."""

from __future__ import annotations

import time
from pathlib import Path

import onnx
import pytest
import torch
from onnx import parser
from PIL import Image

from rtdetr_cli.backends.load import load_detector
from rtdetr_cli.backends.openvino.package import same_signal_stack
from rtdetr_cli.cli.main import run
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.config.settings.val import ValSettings
from rtdetr_cli.core.errors import BackendError, UsageError, WeightsError

ENDLESS = """<ir_version: 8, opset_import: ["" : 17]>
endless (float[N,3,32,64] images, int64[N,2] orig_target_sizes)
    => (int64[N,R] labels, float[N,R,4] boxes, float[N,R] scores) {
  trips = Constant<value = int64 {TRIPS}>()
  go = Constant<value = bool {1}>()
  one = Constant<value = int64[1] {1}>()
  mean = ReduceMean<axes = [1, 2, 3], keepdims = 0>(images)
  last = Loop(trips, go, mean) <body = turn (int64 i, bool c, float[N] x)
      => (bool on, float[N] y) {
    on = Identity(c)
    y = Cos(x)
  }>
  scores = Unsqueeze(last, one)
  whole = Floor(scores)
  labels = Cast<to = 7>(whole)
  sizes = Cast<to = 1>(orig_target_sizes)
  corners = Concat<axis = 1>(sizes, sizes)
  boxes = Unsqueeze(corners, one)
}"""
"""The official contract after a loop of cosines, which converges to 0.739."""


def save(path: Path, trips: int) -> Path:
    onnx.save(parser.parse_model(ENDLESS.replace("TRIPS", str(trips))), path)
    return path


def detect(path: Path, timeout: float | None):
    detector = load_detector(str(path), "cpu", timeout=timeout)
    return detector.detect(torch.zeros(2, 3, 32, 64), [(9, 9)] * 2)


def test_onnx_runtime_stops_an_endless_loop(tmp_path, capfd):
    path = save(tmp_path / "x.onnx", 2**62)
    start = time.monotonic()
    with pytest.raises(
        BackendError,
        match=r"x\.onnx did not finish 2 images in 0\.5 s \(timeout=0\.25 for each\)",
    ):
        detect(path, 0.25)
    assert 0.5 <= time.monotonic() - start < 5
    assert capfd.readouterr().err == ""  # the runtime logs nothing


def test_a_timeout_does_not_affect_a_graph_that_finishes(tmp_path):
    path = save(tmp_path / "x.onnx", 100)
    for timeout in (60, None):
        assert [one.scores.item() for one in detect(path, timeout)] == pytest.approx(
            [0.739085] * 2, abs=1e-5
        )


def test_a_timeout_ends_the_command_with_exit_code_5(tmp_path, capsys):
    path, image = save(tmp_path / "x.onnx", 2**62), tmp_path / "a.png"
    Image.new("RGB", (9, 9)).save(image)
    words = [f"model={path}", f"source={image}", "device=cpu", "save=false", "timeout=0.2"]
    assert run(["predict", *words]) == 5
    assert "did not finish 1 image in 0.2 s" in capsys.readouterr().err


@pytest.mark.parametrize("settings", [PredictSettings, ValSettings])
def test_timeout_is_rejected_if_the_runtime_cannot_be_stopped(settings):
    needed = {"source": "x"} if settings is PredictSettings else {"data": "x"}
    for model, reason in (
        ("x.pt", "timeout has no effect on x.pt, which is not an exported file"),
        ("x.engine", "timeout has no effect on x.engine: TensorRT cannot be interrupted"),
    ):
        with pytest.raises(UsageError, match=reason):
            settings(model=model, timeout=1, **needed)
    with pytest.raises(UsageError, match="timeout must be at least"):
        settings(model="x.onnx", timeout=0, **needed)
    assert settings(model="x.onnx", timeout=2, **needed).timeout == 2.0


CHAIN = """<ir_version: 8, opset_import: ["" : 17]>
chain (float[N,3,32,64] images, int64[N,2] orig_target_sizes)
    => (int64[N,R] labels, float[N,R,4] boxes, float[N,R] scores) {
  one = Constant<value = int64[1] {1}>()
  size = Constant<value = int64[2] {700, 700}>()
  mean = ReduceMean<axes = [1, 2, 3], keepdims = 0>(images)
  least = ReduceMin<keepdims = 0>(mean)
  m0 = Expand(least, size)
  PRODUCTS
  last = ReduceMean<keepdims = 0>(mCOUNT)
  score = Mul(mean, last)
  scores = Unsqueeze(score, one)
  whole = Floor(scores)
  labels = Cast<to = 7>(whole)
  sizes = Cast<to = 1>(orig_target_sizes)
  corners = Concat<axis = 1>(sizes, sizes)
  boxes = Unsqueeze(corners, one)
}"""


def openvino_model(path: Path, text: str) -> Path:
    openvino = pytest.importorskip("openvino", reason="rtdetr-cli[openvino]")
    onnx.save(parser.parse_model(text), path.with_suffix(".onnx"))
    with same_signal_stack():
        openvino.save_model(openvino.Core().read_model(path.with_suffix(".onnx")), path)
    return path


def test_openvino_stops_between_operators(tmp_path):
    count = 60
    products = "\n".join(f"m{n + 1} = MatMul(m{n}, m{n})" for n in range(count))
    text = CHAIN.replace("PRODUCTS", products).replace("COUNT", str(count))
    path = openvino_model(tmp_path / "x.xml", text)
    with pytest.raises(BackendError, match=r"x\.xml did not finish 2 images in 0\.02 s"):
        detect(path, 0.01)
    assert [one.scores.tolist() for one in detect(path, 600)] == [[0.0], [0.0]]


def test_openvino_rejects_a_loop_with_a_timeout(tmp_path):
    path = openvino_model(tmp_path / "x.xml", ENDLESS.replace("TRIPS", "3"))
    with pytest.raises(
        WeightsError, match=r"x\.xml has the operator Loop, .* run it without timeout"
    ):
        detect(path, 1)


def test_weights_without_pytorch_are_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr("rtdetr_cli.backends.load.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"rtdetr-n\.yaml needs PyTorch: pip install torch"):
        load_detector("rtdetr-n.yaml")
