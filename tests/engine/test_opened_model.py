"""Models are moved, copied and pickled; a copy has the same detections."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch

from rtdetr_cli import RTDETR
from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.core.errors import BackendError, UsageError
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
NAMES = {0: "person", 1: "bus"}


@pytest.fixture
def weights(tiny_config, tmp_path):
    torch.manual_seed(0)
    network = RTDETRNetwork(tiny_config, len(NAMES))
    save_checkpoint(tmp_path / "tiny.pt", Checkpoint(tiny_config, NAMES, network.state_dict()))
    return tmp_path / "tiny.pt"


EXPORTED = [pytest.param(name, marks=pytest.mark.slow) for name in ("onnx", "openvino")]


@pytest.fixture(params=["pt", *EXPORTED, "yaml"])
def model(request, weights, tiny_yaml):
    if request.param == "yaml":
        return RTDETR(tiny_yaml, "cpu")
    if request.param == "pt":
        return RTDETR(weights, "cpu")
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}[request.param])
    exported = RTDETR(weights, "cpu").export(format=request.param, imgsz=64)
    return RTDETR(exported, "cpu")


def boxes(model: RTDETR) -> torch.Tensor:
    (results,) = model(IMAGE, conf=0.0)
    return torch.as_tensor(results.boxes.data)  # an array for exported files


def test_copies_and_pickles_detect_the_same(model):
    expected = boxes(model)
    assert len(expected) > 10
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.names == model.names
        assert torch.equal(boxes(other), expected)


def test_another_process_detects_the_same(weights, tmp_path):
    model = RTDETR(weights, "cpu")
    (tmp_path / "model").write_bytes(pickle.dumps((model, IMAGE)))
    program = (
        "import pickle, sys; model, image = pickle.load(open(sys.argv[1], 'rb'));"
        "print(model(image, conf=0.0)[0].boxes.data.sum().item())"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "model")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert float(printed) == boxes(model).sum().item()


def test_a_copy_has_weights_of_its_own(weights):
    model = RTDETR(weights, "cpu")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in copy.deepcopy(model).parameters():
            parameter.add_(1)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_moving_keeps_weights_and_detections(weights):
    model = RTDETR(weights, "cpu")
    expected, network = boxes(model), model.model
    assert model.to("cpu") is model.cpu() is model.to(torch.device("cpu")) is model.eval() is model
    assert model.model is network
    assert torch.equal(boxes(model), expected)
    with pytest.raises(BackendError, match="device=99 is not available"):
        model.cuda(99)
    assert model.device == torch.device("cpu")


def test_half_applies_until_float(weights):
    model = RTDETR(weights, "cpu")
    assert model.half() is model
    with suppress(BackendError):  # on a CPU without bf16
        model(IMAGE)
    assert model.predictor.args.half
    model.float()(IMAGE)
    assert not model.predictor.args.half


def test_reset_weights_starts_a_shipped_architecture_from_scratch(weights, tmp_path):
    config = replace(load_model_config("rtdetr-n"), norm_eps=1e-3)  # as a file may have it
    state = RTDETRNetwork(config, len(NAMES)).state_dict()
    save_checkpoint(tmp_path / "n.pt", Checkpoint(config, NAMES, state))
    model = RTDETR(tmp_path / "n.pt", "cpu")
    assert model.reset_weights() is model
    assert model.ckpt_path == model.overrides["model"] == "rtdetr-n.yaml"
    name = "decoder.enc_output.proj.weight"
    assert not torch.equal(model.state_dict()[name], state[name])
    with pytest.raises(UsageError, match="has an architecture of its own"):
        RTDETR(weights, "cpu").reset_weights()


def test_ckpt_is_what_the_file_records(weights):
    recorded = RTDETR(weights, "cpu").ckpt
    assert recorded["names"] == NAMES
    assert recorded["architecture"]["name"] == "tiny"
    assert RTDETR("rtdetr-n.yaml").ckpt is None
