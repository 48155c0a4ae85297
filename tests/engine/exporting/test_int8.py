"""INT8 through the real command, once because tracing is slow, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from rtdetr_cli.backends.onnx.detector import OnnxDetector
from rtdetr_cli.backends.onnx.int8 import blocks
from rtdetr_cli.backends.tensorrt.rules import find_faults
from rtdetr_cli.cli.main import run
from rtdetr_cli.config.model import ModelConfig, Preprocessing
from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.engine.exporting.images import find_calibration, find_images
from rtdetr_cli.engine.exporting.int8 import warn_if_all_float
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint

NAMES = {0: "green", 1: "red"}


@pytest.fixture(scope="module")
def checkpoint(tiny_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights whose maps stay alive and whose outputs depend on the image."""
    torch.manual_seed(1)
    network = RTDETRNetwork(tiny_config, len(NAMES))
    for head in (network.decoder.enc_score_head, *network.decoder.dec_score_head):
        nn.init.normal_(head.weight, std=1.0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network.encoder(network.backbone(torch.rand(4, 3, 64, 64)))
    path = tmp_path_factory.mktemp("int8") / "tiny.pt"
    weights = network.eval().state_dict()
    save_checkpoint(path, Checkpoint(tiny_config, NAMES, weights, Preprocessing((64, 64), False)))
    return path


@pytest.mark.slow
def test_int8_is_calibrated_judged_and_reports_what_stays_float(checkpoint, squares, capsys):
    words = [f"model={checkpoint}", "int8", f"data={squares}/data.yaml"]
    assert run(["export", *words]) == 0
    printed = capsys.readouterr()
    path = checkpoint.with_name("tiny_int8.onnx")
    report = json.loads(path.with_name("tiny_int8.report.json").read_text())
    assert (report["precision"], report["verdict"]) == ("int8", "passed")
    assert (report["calibration_images"], report["agreement"]["images"]) == (9, 4)
    assert report["agreement"]["limits"]["ap"] == 0.005
    assert f"calibrating on 9 images of {squares}/data.yaml, train" in printed.err

    model = onnx.load(path)
    assert find_faults(model) == []
    rounded = [node for node in model.graph.node if node.name.endswith("/Weight")]
    assert len(rounded) == report["convolutions"] > 0
    # Random weights are sensitive: some blocks went back to float, each with a reason.
    always, kept = ["decoder", "attention of the encoder"], list(report["float"])[2:]
    assert list(report["float"])[:2] == always
    assert kept
    assert set(kept) < set(blocks(model.graph))
    assert not [node.name for node in rounded if node.name.startswith(tuple(f"{x}/" for x in kept))]
    for block in kept:
        assert f"{block} stays float: {report['float'][block]}" in printed.err
        assert f", {block}" in printed.out

    detector = OnnxDetector(path, "cpu")
    assert (detector.notes.precision, detector.notes.verdict) == ("int8", "passed")
    assert detector.notes.extra["int8"]["float"] == report["float"]


def test_calibration_takes_the_train_split_or_a_folder(squares, capsys):
    data = str(squares / "data.yaml")
    compared = find_images(data, 100)
    found = find_calibration(data, compared)
    assert {path.parent.name for path in found.sources} == {"train"}
    assert (len(found.sources), found.origin) == (9, f"{data}, train")
    assert "only 9 calibration images; use at least 100" in capsys.readouterr().err
    folder = str(squares / "images" / "val")
    found = find_calibration(folder, find_images(folder, 100))
    assert (len(found.sources), found.origin) == (4, folder)
    assert "calibration and comparison share images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"int8": True}, "needs data= to calibrate on"),
        ({"int8": True, "verify": False}, "int8=true needs verify=true"),
        ({"int8": True, "half": True, "data": "x"}, "half and int8 cannot be combined"),
        ({"int8_drop": 1.0}, "int8_drop has no effect without int8=true"),
    ],
)
def test_what_int8_needs(keys, reason):
    with pytest.raises(UsageError, match=reason):
        ExportSettings(model="best.pt", **keys)


def test_an_onnx_file_is_not_made_int8():
    with pytest.raises(UsageError, match=r"int8 is fixed inside best\.onnx"):
        ExportSettings(model="best.onnx", format="engine", int8=True, data="x")


def test_a_file_without_int8_is_warned_of(capsys):
    warn_if_all_float({"a": "AP fell"}, ["a", "b"])
    assert capsys.readouterr().err == ""
    warn_if_all_float({"a": "AP fell", "b": "AP fell"}, ["a", "b"])
    assert "no block can be int8 within the limits" in capsys.readouterr().err
