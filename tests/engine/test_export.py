"""Export through the real command, once (tracing takes a while), and its verdict on faults."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from rtdetr_cli.backends.load import load_detector
from rtdetr_cli.backends.onnx import OnnxDetector
from rtdetr_cli.backends.torch import TorchDetector
from rtdetr_cli.cli.main import run
from rtdetr_cli.config.model import (
    DecoderConfig,
    EncoderConfig,
    HGNetv2Config,
    HGStage,
    ModelConfig,
    Preprocessing,
)
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.core.image import Pixels
from rtdetr_cli.core.structures import Detections
from rtdetr_cli.engine.export import (
    Agreement,
    compare,
    find_pictures,
    keep_apart_if_wrong,
    match,
)
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint

CONFIG = ModelConfig(
    name="tiny",
    backbone=HGNetv2Config((4, 8), tuple(HGStage(4, out, 1, layers=1) for out in (8, 16, 16, 32))),
    encoder=EncoderConfig(hidden_dim=16, ffn_dim=32, num_heads=2, num_csp_blocks=1),
    decoder=DecoderConfig(hidden_dim=16, ffn_dim=32, num_layers=3, num_heads=2, num_queries=20),
)
NAMES = {0: "green", 1: "red"}
SIZE_HW = (64, 96)


def make_network() -> RTDETRNetwork:
    """Random weights whose answers depend on what is seen, unlike those of a fresh network."""
    torch.manual_seed(1)
    network = RTDETRNetwork(CONFIG, len(NAMES))
    for head in (network.decoder.enc_bbox_head, *network.decoder.dec_bbox_head):
        nn.init.normal_(head.layers[-1].weight, std=0.5)
    for head in (network.decoder.enc_score_head, *network.decoder.dec_score_head):
        nn.init.normal_(head.weight, std=1.0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network.backbone(torch.rand(4, 3, *SIZE_HW))  # norms see pictures: no map fades away
    return network.eval()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "tiny.pt"
    weights = make_network().state_dict()
    save_checkpoint(path, Checkpoint(CONFIG, NAMES, weights, Preprocessing((64, 64), False)))
    return path


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    """Two of three decoder layers, another size than the checkpoint's own, default opset."""
    words = [f"model={checkpoint}", "imgsz=64,96", "decoder_layers=2", "num_queries=15"]
    assert run(["export", *words]) == 0
    return checkpoint.with_suffix(".onnx")


@pytest.fixture(scope="module")
def model(exported: Path) -> onnx.ModelProto:
    return onnx.load(exported)


@cache
def reference() -> TorchDetector:
    network = make_network()
    network.set_speed(2, 15)
    return TorchDetector(network, NAMES, Preprocessing(SIZE_HW, False), torch.device("cpu"))


@pytest.fixture(scope="module")
def pictures() -> list[Pixels]:
    """Drawn ones, of eight shapes."""
    return find_pictures(None)


def test_the_file_answers_as_pytorch_for_every_batch(exported):
    detector = load_detector(str(exported), device="cpu")
    images = torch.rand(3, 3, *SIZE_HW, generator=torch.Generator().manual_seed(0))
    sizes_hw = [(480, 640), (100, 50), (33, 77)]
    expected = reference().detect(images, sizes_hw)
    for count in (1, 2, 3):
        found = detector.detect(images[:count], sizes_hw[:count])
        for ours, theirs in zip(expected, found, strict=False):
            assert len(theirs) == 30  # all pairs of 15 queries and two classes
            assert theirs.labels.tolist() == ours.labels.tolist()
            torch.testing.assert_close(theirs.scores, ours.scores, atol=1e-5, rtol=0)
            torch.testing.assert_close(theirs.boxes_xyxy, ours.boxes_xyxy, atol=1e-2, rtol=0)


def test_the_file_says_how_to_use_it(exported, model):
    detector = OnnxDetector(exported, "cpu")
    assert detector.names == NAMES
    assert detector.preprocessing == Preprocessing(SIZE_HW, False)
    notes = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert notes["architecture"]["decoder"]["num_layers"] == 3
    assert (notes["decoder_layers"], notes["num_queries"]) == (2, 15)
    assert notes["preprocessing"]["resize"] == "stretch"


def test_the_graph_is_the_contract_and_nothing_else(model):
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    signature = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert signature == {
        "images": ["batch", 3, 64, 96],
        "orig_target_sizes": ["batch", 2],
        "labels": ["batch", 30],
        "boxes": ["batch", 30, 4],
        "scores": ["batch", 30],
    }


def test_anchors_and_position_embedding_are_constants(model):
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"Range", "Sin", "Cos", "Pow", "Where", "BatchNormalization"}
    shapes = [tuple(tensor.dims) for tensor in model.graph.initializer]
    tokens = 8 * 12 + 4 * 6 + 2 * 3
    assert any(tokens in shape and shape[-1] == 4 for shape in shapes)  # anchors
    assert any(shape[-2:] == (6, 16) for shape in shapes if len(shape) > 1)  # position of S5


def test_dropped_layers_training_parts_and_paths_are_not_in_the_file(model, exported):
    kept = sum(math.prod(tensor.dims) for tensor in model.graph.initializer)
    assert kept < 0.95 * sum(value.numel() for value in make_network().state_dict().values())
    assert [node.op_type for node in model.graph.node].count("GridSample") == 2 * 3
    content = exported.read_bytes()
    assert b"site-packages" not in content
    assert str(Path(__file__).parents[2]).encode() not in content


def test_the_file_agrees_on_pictures(exported, pictures):
    agreement = compare(reference(), OnnxDetector(exported, "cpu"), pictures)
    assert agreement.passes
    assert agreement.pictures == 8
    assert agreement.matched > 0.999
    assert agreement.box_drift_px < 0.1
    assert agreement.score_drift < 1e-4
    assert str(agreement).startswith("100.00% of the detections on 8 pictures match, boxes within")


class Faulty:
    """A detector that answers as another one does, but for a planted fault."""

    def __init__(self, fault: str) -> None:
        self.inner, self.fault = reference(), fault
        self.names, self.preprocessing = self.inner.names, self.inner.preprocessing
        self.description = fault

    def detect(self, images, sizes_hw, max_det=300):
        if self.fault == "BGR":
            images = images.flip(1)
        if self.fault == "0..255":
            images = images * 255
        if self.fault == "width and height exchanged":
            sizes_hw = [(width, height) for height, width in sizes_hw]
        found = self.inner.detect(images, sizes_hw, max_det)
        return [self.spoil(one) for one in found]

    def spoil(self, one: Detections) -> Detections:
        boxes, scores, labels = one.boxes_xyxy, one.scores, one.labels
        if self.fault == "labels shifted":
            labels = labels + 1
        if self.fault == "boxes and scores of other rows":
            boxes = boxes.roll(1, 0)
        if self.fault == "no numbers":
            boxes, scores = boxes * math.nan, scores * math.nan
        if self.fault == "cxcywh":
            boxes = torch.cat(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), 1)
        if self.fault == "the best one lost":
            scores = torch.cat((torch.zeros(1), scores[1:]))
        return Detections(boxes, scores, labels)


@pytest.mark.parametrize(
    "fault",
    [
        "BGR",
        "0..255",
        "width and height exchanged",
        "labels shifted",
        "boxes and scores of other rows",
        "no numbers",
        "cxcywh",
        "the best one lost",
    ],
)
def test_planted_faults_are_found(fault, pictures):
    assert compare(reference(), Faulty("none"), pictures[:3]).passes
    assert not compare(reference(), Faulty(fault), pictures[:3]).passes


def test_a_wrong_file_is_kept_under_another_name(tmp_path):
    path, written = tmp_path / "x.onnx", tmp_path / ".x-1.onnx"
    written.write_bytes(b"graph")
    keep_apart_if_wrong(Agreement(8, 1.0, 0.01, 1e-6), written, path)
    assert written.exists()
    with pytest.raises(BackendError, match=r"41\.00% of the detections .* see .*x\.failed\.onnx"):
        keep_apart_if_wrong(Agreement(8, 0.41, 3.0, 0.2), written, path)
    assert [file.name for file in tmp_path.iterdir()] == ["x.failed.onnx"]


def test_detections_in_another_order_match():
    boxes = torch.tensor([[0, 0, 10, 10], [50, 50, 90, 90], [50, 50, 90, 90]]).float()
    ours = Detections(boxes, torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0, 1, 1]))
    theirs = ours.keep(torch.tensor([2, 0, 1]))
    rows, columns = match(ours, theirs, tolerance_px=1.0)
    assert dict(zip(rows.tolist(), columns.tolist(), strict=True)) == {0: 1, 1: 2, 2: 0}
    theirs.boxes_xyxy[1] += 1.5
    assert match(ours, theirs, tolerance_px=1.0)[0].tolist() == [1, 2]


def test_pictures_come_from_a_data_set_a_folder_or_ourselves(squares, pictures):
    assert [one.shape for one in find_pictures(str(squares / "data.yaml"))] == [(64, 80, 3)] * 4
    assert len(find_pictures(str(squares / "images" / "train"))) == 5  # nine, each second one
    assert len({one.shape for one in pictures}) == 8


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["format=engine"], 5, "format=engine is not built by this version"),
        (["format=engine"], 5, "--optShapes=images:1x3x64x64,orig_target_sizes:1x2"),
        (["output=x.pt"], 2, "output=x.pt must end in .onnx"),
        (["opset=20"], 2, "opset must be at most 19"),
        (["decoder_layers=4"], 2, "has 3 decoder layers"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(checkpoint, capsys, words, code, sentence):
    assert run(["export", f"model={checkpoint}", *words]) == code
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_an_exported_file_is_not_exported_again(exported, capsys):
    assert run(["export", f"model={exported}"]) == 2
    assert "give the weights (.pt)" in capsys.readouterr().err


def test_info_reads_our_own_file(exported, capsys):
    assert run(["info", f"model={exported}", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["origin"], found["architecture"]) == ("rtdetr export", "tiny")
    assert (found["decoder_layers"], found["num_queries"]) == (2, 15)
    assert found["size_hw"] == [64, 96]
    assert found["gflops"] == found["depths"][1]["gflops"]
