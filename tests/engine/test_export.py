"""Export through the real command, once (tracing takes a while), and its verdict on faults."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import onnx
import pytest
import torch
from onnx import parser
from torch import nn

from rtdetr_cli.backends.load import load_detector
from rtdetr_cli.backends.onnx.detector import OnnxDetector
from rtdetr_cli.backends.onnx.graph import GraphOptions
from rtdetr_cli.backends.onnx.half import halve_file
from rtdetr_cli.backends.onnx.half_on_cpu import RoundingDetector
from rtdetr_cli.backends.onnx.writer import note_verdict
from rtdetr_cli.backends.tensorrt.rules import find_faults
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
from rtdetr_cli.engine.exporting import onnx as onnx_export
from rtdetr_cli.engine.exporting.images import find_images
from rtdetr_cli.engine.exporting.onnx import set_aside_if_wrong
from rtdetr_cli.engine.exporting.report import Report
from rtdetr_cli.engine.exporting.verdict import LIMITS, Agreement, Drift, compare
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
WRONG = """<ir_version: 8, opset_import: ["" : 17]>
wrong (float[N,3,64,64] images, int64[N,2] orig_target_sizes)
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
"""The right contract with meaningless outputs."""
IDENTITY = """<ir_version: 8, opset_import: ["" : 17], metadata_props: ["rtdetr_format": "1"]>
same (float[1] x) => (float[1] y) { y = Identity(x) }"""


def make_network() -> RTDETRNetwork:
    """Random weights whose outputs depend on the image, unlike those of a fresh network."""
    torch.manual_seed(1)
    network = RTDETRNetwork(CONFIG, len(NAMES))
    for head in (network.decoder.enc_bbox_head, *network.decoder.dec_bbox_head):
        nn.init.normal_(head.layers[-1].weight, std=0.5)
    for head in (network.decoder.enc_score_head, *network.decoder.dec_score_head):
        nn.init.normal_(head.weight, std=1.0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network.backbone(torch.rand(4, 3, *SIZE_HW))  # norm statistics from images keep the maps alive
    return network.eval()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "tiny.pt"
    weights = make_network().state_dict()
    size = Preprocessing((64, 64), False)
    save_checkpoint(path, Checkpoint(CONFIG, NAMES, weights, size, licence="MIT, stated here"))
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


def test_the_file_equals_pytorch_for_every_batch(exported):
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


def test_the_metadata_describes_how_to_use_the_file(exported, model):
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


def test_nodes_are_named_after_their_modules(model):
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert {name.split("/")[0] for name in names} == {"backbone", "encoder", "decoder", "post"}
    of_conv = [node.name for node in model.graph.node if node.op_type == "Conv"]
    assert of_conv[0].startswith("backbone/stem/stem1/")
    last = next(node for node in model.graph.node if "scores" in node.output)
    assert last.name == "post/Sigmoid"
    assert str(Path.cwd()).encode() not in model.SerializeToString()


def test_anchors_and_position_embedding_are_constants(model):
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"Range", "Sin", "Cos", "Pow", "Where", "BatchNormalization"}
    shapes = [tuple(tensor.dims) for tensor in model.graph.initializer]
    tokens = 8 * 12 + 4 * 6 + 2 * 3
    assert any(tokens in shape and shape[-1] == 4 for shape in shapes)  # anchors
    assert any(shape[-3:] == (6, 3 * 2, 8) for shape in shapes)  # position of S5, per head


def test_dropped_layers_training_parts_and_paths_are_not_in_the_file(model, exported):
    kept = sum(math.prod(tensor.dims) for tensor in model.graph.initializer)
    assert kept < 0.95 * sum(value.numel() for value in make_network().state_dict().values())
    assert [node.op_type for node in model.graph.node].count("GridSample") == 2 * 3
    content = exported.read_bytes()
    assert b"site-packages" not in content
    assert str(Path(__file__).parents[2]).encode() not in content


def test_tensorrt_takes_the_graph_in_both_precisions(model, exported, tmp_path):
    assert find_faults(model) == []
    path = tmp_path / "x_half.onnx"
    path.write_bytes(exported.read_bytes())
    halve_file(path)
    assert find_faults(onnx.load(path)) == []
    weights = {one.name for one in onnx.load(path).graph.initializer if one.data_type == 1}
    assert len(weights) < 20  # anchors, ends of clips and the like
    exact, rounded = (kind(path, "cpu") for kind in (OnnxDetector, RoundingDetector))
    agreement = compare(exact, rounded, find_images(None), LIMITS["fp16"])
    assert agreement.score_drift.median < 0.005  # random weights: rounding moves some boxes far
    assert rounded.overflows == []


def test_the_file_agrees_on_images(exported):
    agreement = compare(reference(), OnnxDetector(exported, "cpu"), find_images(None))
    assert agreement.passes
    assert (agreement.num_images, agreement.raw_detections) == (8, 8 * 30)
    assert agreement.matched > 0.999
    assert (agreement.lost, agreement.new) == (0, 0)
    assert agreement.box_drift_px.max < 0.1
    assert agreement.score_drift.max < 1e-4


def test_the_report_is_beside_the_file_and_the_verdict_in_it(exported, model):
    report = json.loads(exported.with_suffix(".report.json").read_text())
    assert (report["path"], report["verdict"], report["precision"]) == (
        str(exported),
        "passed",
        "fp32",
    )
    assert report["agreement"]["images"] == 8
    assert report["agreement"]["limits"]["matched"] == 0.99
    assert report["agreement"]["box_drift_px"]["max"] < 0.1
    assert OnnxDetector(exported, "cpu").notes.verdict == "passed"
    onnx.checker.check_model(model)


def test_a_wrong_file_is_kept_under_another_name_with_its_report(tmp_path):
    path, written = tmp_path / "x.onnx", tmp_path / ".x-1.onnx"
    written.write_bytes(b"graph")
    drift = Drift(0.001, 0.002, 0.01)
    good = Agreement(8, 20, 2400, 1.0, drift, drift, lost=0, new=0)
    set_aside_if_wrong(Report({}, good, "x"), written, path)
    set_aside_if_wrong(Report({}, None, None), written, path)
    assert written.exists()
    bad = replace(good, matched=0.41, lost=3)
    with pytest.raises(
        BackendError, match=r"41\.00% match, at least 99% required; 3 lost .*x\.failed\.onnx"
    ) as caught:
        set_aside_if_wrong(Report({}, bad, "x"), written, path)
    assert caught.value.exit_code == 5
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "x.failed.onnx",
        "x.failed.report.json",
    ]
    report = json.loads((tmp_path / "x.failed.report.json").read_text())
    assert (report["verdict"], report["agreement"]["passes"]) == ("failed", False)


@pytest.fixture
def writes_nonsense(monkeypatch):
    """A fast writer of a wrong graph."""

    def write(path, *_):
        onnx.save(parser.parse_model(WRONG), path)
        return 8

    monkeypatch.setattr(onnx_export, "write_onnx", write)


def test_the_command_refuses_a_wrong_file(writes_nonsense, checkpoint, tmp_path, capsys):
    path = tmp_path / "x.onnx"
    path.write_bytes(b"an older one")
    assert run(["export", f"model={checkpoint}", f"output={path}"]) == 5
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "outputs differ from PyTorch" in printed.err
    assert path.read_bytes() == b"an older one"
    failed = onnx.load(tmp_path / "x.failed.onnx")
    assert [(one.key, one.value) for one in failed.metadata_props] == [("verdict", '"failed"')]
    report = json.loads((tmp_path / "x.failed.report.json").read_text())
    assert (report["verdict"], report["agreement"]["images"]) == ("failed", 8)


def test_the_command_warns_without_comparison(writes_nonsense, checkpoint, tmp_path, capsys):
    path = tmp_path / "x.onnx"
    assert run(["export", f"model={checkpoint}", f"output={path}", "verify=false"]) == 0
    said = capsys.readouterr().err
    assert "the file was not compared with PyTorch" in said
    assert said.splitlines()[-3:] == [
        "next:",
        f"  rtdetr predict model={path} source=your.jpg",
        f"  rtdetr val model={path} data=your.yaml",
    ]
    notes = {one.key: one.value for one in onnx.load(path).metadata_props}
    assert notes == {"verdict": '"not compared with PyTorch"'}
    report = json.loads(path.with_suffix(".report.json").read_text())
    assert (report["verdict"], report["agreement"]) == ("not compared with PyTorch", None)


def test_keys_of_the_graph_reach_the_writer(checkpoint, tmp_path, monkeypatch):
    seen = []

    def write(path, *given):
        seen.extend(one for one in given if isinstance(one, GraphOptions))
        onnx.save(parser.parse_model(WRONG), path)
        return 8

    monkeypatch.setattr(onnx_export, "write_onnx", write)
    words = [f"model={checkpoint}", f"output={tmp_path}/x.onnx", "verify=false"]
    assert run(["export", *words]) == 0
    keys = ["dynamic", "input=uint8", "postprocess=false", "sampler=gather", "batch=2", "opset=18"]
    assert run(["export", *words, *keys]) == 0
    assert seen == [
        GraphOptions(),
        GraphOptions(18, "gather", dynamic=True, postprocess=False, input="uint8", batch=2),
    ]
    assert json.loads((tmp_path / "x.report.json").read_text())["sampler"] == "gather"


def test_whole_pixels_are_gathered_and_nothing_else(tmp_path, writes_nonsense, capsys):
    config = replace(CONFIG, decoder=replace(CONFIG.decoder, sampling="discrete"))
    path = tmp_path / "tiny.pt"
    weights = RTDETRNetwork(config, len(NAMES)).state_dict()
    save_checkpoint(path, Checkpoint(config, NAMES, weights, Preprocessing((64, 64), False)))
    words = [f"model={path}", "verify=false"]
    assert run(["export", *words, "sampler=grid_sample"]) == 2
    assert "tiny samples whole pixels, which needs sampler=gather" in capsys.readouterr().err
    for more in ([], ["sampler=gather"]):
        assert run(["export", *words, *more]) == 0
        report = json.loads(path.with_suffix(".report.json").read_text())
        assert report["sampler"] == "gather"


def test_a_file_that_was_not_compared_records_it(tmp_path):
    path = tmp_path / "x.onnx"
    onnx.save(parser.parse_model(IDENTITY), path)
    note_verdict(path, Report({}, None, None).verdict)
    model = onnx.load(path)
    assert [(one.key, one.value) for one in model.metadata_props] == [
        ("rtdetr_format", "1"),
        ("verdict", '"not compared with PyTorch"'),
    ]
    assert len(model.graph.node) == 1


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["output=x.pt"], 2, "output=x.pt must end in .onnx"),
        (["opset=20"], 2, "opset must be at most 19"),
        (["decoder_layers=4"], 2, "has 3 decoder layers"),
        (["verify=false", "data=x"], 2, "data has no effect with verify=false"),
        (["verify=false", "verify_images=9"], 2, "verify_images has no effect with verify=false"),
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


def test_the_licence_of_the_weights_is_carried_on(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["info", f"model={exported}"]) == 0
    assert "licence, weights   MIT, stated here\n" in capsys.readouterr().out
