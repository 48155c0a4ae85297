"""Export to OpenVINO: a tiny network equals PyTorch; wrong folders are set aside."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rtdetr_cli.backends.load import load_detector
from rtdetr_cli.backends.notes import ExportNotes, parse_notes
from rtdetr_cli.backends.openvino.detector import OpenVINODetector
from rtdetr_cli.backends.torch import TorchDetector
from rtdetr_cli.cli.main import run
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.engine.exporting import openvino as module
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint

pytest.importorskip("openvino", reason="openvino is not installed: rtdetr-cli[openvino]")

NAMES = {0: "green", 1: "red"}
SIZE_HW = (64, 96)


@pytest.fixture(scope="module")
def network(tiny_config) -> RTDETRNetwork:
    """Random weights whose outputs depend on the image, unlike those of a fresh network."""
    torch.manual_seed(1)
    network = RTDETRNetwork(tiny_config, len(NAMES))
    for head in (network.decoder.enc_bbox_head, *network.decoder.dec_bbox_head):
        nn.init.normal_(head.layers[-1].weight, std=0.5)
    for head in (network.decoder.enc_score_head, *network.decoder.dec_score_head):
        nn.init.normal_(head.weight, std=1.0)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    network.backbone(torch.rand(4, 3, *SIZE_HW))  # norm statistics from images keep the maps alive
    return network.eval()


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("openvino") / "tiny.pt"
    config, state = network.config, network.state_dict()
    save_checkpoint(path, Checkpoint(config, NAMES, state, Preprocessing(SIZE_HW, False)))
    return path


@pytest.fixture(scope="module")
def exported(weights) -> Path:
    """Exported by the real command, once because tracing is slow."""
    assert run(["export", f"model={weights}", "format=openvino"]) == 0
    return weights.with_name("tiny_openvino_model")


@pytest.mark.slow
def test_a_folder_equals_pytorch(exported, network):
    reference = TorchDetector(network, NAMES, Preprocessing(SIZE_HW, False), torch.device("cpu"))
    detector = load_detector(f"{exported}/")
    images = torch.rand(3, 3, *SIZE_HW, generator=torch.Generator().manual_seed(0))
    sizes_hw = [(480, 640), (100, 50), (33, 77)]
    for ours, theirs in zip(
        reference.detect(images, sizes_hw), detector.detect(images, sizes_hw), strict=True
    ):
        assert theirs.labels.tolist() == ours.labels.tolist()
        torch.testing.assert_close(theirs.scores, ours.scores, atol=1e-5, rtol=0)
        torch.testing.assert_close(theirs.boxes_xyxy, ours.boxes_xyxy, atol=1e-2, rtol=1e-4)


@pytest.mark.slow
def test_report_and_metadata_describe_the_files(exported, capsys):
    notes = json.loads((exported / "metadata.json").read_text())
    assert (notes["verdict"], notes["precision"], notes["floats"]) == ("passed", "fp32", "f32")
    assert notes["names"] == {"0": "green", "1": "red"}
    report = json.loads(exported.with_name("tiny_openvino_model.report.json").read_text())
    assert report["agreement"]["passes"]
    assert report["megabytes"] > 0.1
    assert run(["info", f"model={exported}", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["origin"], found["architecture"]) == ("rtdetr export", "tiny")


def notes_of(folder: Path) -> ExportNotes:
    return parse_notes(json.loads((folder / "metadata.json").read_text()), folder.name)


FAULTS = {
    "channels": lambda images: images.flip(1),
    "order": lambda images: images.flip(3),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_whose_outputs_differ_is_set_aside(
    exported, weights, tmp_path, monkeypatch, capsys, fault
):
    """The files of the first export, read by a detector that prepares images wrongly."""

    class Wrong(OpenVINODetector):
        def detect(self, images, sizes_hw, max_det=300):
            return super().detect(FAULTS[fault](images), sizes_hw, max_det)

    def write(folder, onnx_path, half=False, calibration=None, kept_float=()):
        for file in exported.iterdir():
            (folder / file.name.replace("tiny", "x")).write_bytes(file.read_bytes())
        return notes_of(exported)

    monkeypatch.setattr(module, "OpenVINODetector", Wrong)
    monkeypatch.setattr(module, "write_onnx", lambda *_, **__: 0)
    monkeypatch.setattr(module, "write_openvino", write)
    output = tmp_path / "x_openvino_model"
    assert run(["export", f"model={weights}", "format=openvino", f"output={output}"]) == 5
    assert "outputs differ from PyTorch" in capsys.readouterr().err
    failed = tmp_path / "x_failed_openvino_model"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "x_failed_openvino_model",
        "x_failed_openvino_model.report.json",
    ]
    assert json.loads((failed / "metadata.json").read_text())["verdict"] == "failed"


@pytest.mark.slow
def test_blocks_become_float_from_the_front_until_int8_passes(
    exported, weights, tmp_path, monkeypatch, capsys
):
    tries: list[list[str]] = []

    class Rounded(OpenVINODetector):
        def detect(self, images, sizes_hw, max_det=300):
            return super().detect(images if len(tries) > 2 else images.flip(1), sizes_hw, max_det)

    def write(folder, onnx_path, half, calibration, kept_float):
        (first, *_) = calibration
        assert first["images"].shape == (1, 3, *SIZE_HW)
        assert first["orig_target_sizes"].tolist() == [[80, 60]]
        tries.append(list(kept_float))
        for file in exported.iterdir():
            (folder / file.name.replace("tiny", "x")).write_bytes(file.read_bytes())
        return replace(notes_of(exported), precision="int8")

    monkeypatch.setattr(module, "OpenVINODetector", Rounded)
    monkeypatch.setattr(module, "write_onnx", lambda *_, **__: 0)
    monkeypatch.setattr(module, "int8_blocks", lambda _: ["a", "b", "c"])
    monkeypatch.setattr(module, "write_openvino", write)
    folder = tmp_path / "images"
    folder.mkdir()
    for n in range(3):
        noise = np.random.default_rng(n).integers(0, 256, (60, 80, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{n}.png")
    words = [f"model={weights}", "format=openvino", "int8", f"data={folder}"]
    output = tmp_path / "x_openvino_model"
    assert run(["export", *words, f"output={output}"]) == 0
    assert tries == [[], ["a"], ["a", "b"]]
    assert "a stays float: " in capsys.readouterr().err
    notes = json.loads((output / "metadata.json").read_text())
    assert list(notes["float"]) == ["decoder", "a", "b"]
    assert notes["calibration_images"] == 3


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (
            {"format": "torchscript"},
            r"must be one of onnx, engine, openvino \(TorchScript is deprecated",
        ),
        ({"format": "coreml"}, r"\(Core ML runs on macOS only"),
        ({"format": "trt"}, r"\(TensorRT is called engine\), found 'trt'"),
        ({"format": "ncnn"}, r"\(ncnn is not supported because"),
        ({"format": "openvino", "opset": 18}, "opset has no effect with format=openvino"),
        ({"format": "openvino", "batch": 8}, "batch has no effect with format=openvino"),
        ({"format": "openvino", "int8": True}, "int8=true needs data="),
        ({"format": "onnx", "int8": True, "half": True}, "except with format=openvino; give one"),
    ],
)
def test_what_is_not_written_is_refused_with_the_reason(keys, sentence):
    with pytest.raises(UsageError, match=sentence):
        ExportSettings(**keys)


def test_the_name_of_a_folder_is_checked(weights, capsys):
    assert run(["export", f"model={weights}", "format=openvino", "output=x.onnx"]) == 2
    assert "output=x.onnx must end in _openvino_model" in capsys.readouterr().err
