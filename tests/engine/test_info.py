"""`rtdetr info` through the real command, for each kind of file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
import torch

from rtdetr_cli.backends.notes import parse_notes
from rtdetr_cli.backends.tensorrt.detector import notes_file, save_engine
from rtdetr_cli.cli.main import run
from rtdetr_cli.config.load import model_config_to_dict
from rtdetr_cli.evaluation.speed import count_flops
from rtdetr_cli.nn.rtdetr import RTDETRNetwork, fuse
from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint


def info(capsys, *words: str) -> dict:
    assert run(["info", *words, "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_an_architecture_is_counted_without_weights(tiny_yaml, tiny_config, capsys):
    found = info(capsys, f"model={tiny_yaml}", "imgsz=64")
    network = RTDETRNetwork(tiny_config, 80).eval()
    assert found["architecture"] == "tiny"
    assert found["parameters"] == sum(tensor.numel() for tensor in network.parameters())
    assert found["gflops"] == pytest.approx(count_flops(network, (64, 64)) / 1e9)
    assert found["gflops_fused"] == pytest.approx(count_flops(fuse(network), (64, 64)) / 1e9)
    assert found["gflops_fused"] < found["gflops"]
    assert len(found["names"]) == 80


def test_an_architecture_is_counted_at_the_size_of_its_paper(capsys):
    found = info(capsys, "model=deimv2-atto.yaml")
    assert found["size_hw"] == [320, 320]
    # DEIMv2's own network has 508,985 with the constants up and reg_scale, and 0.76 GFLOPs
    assert found["parameters"] == 508_985 - 2
    assert found["gflops_fused"] == pytest.approx(0.76, rel=0.01)


def test_every_depth_costs_what_the_network_at_that_depth_costs(tiny_yaml, tiny_config, capsys):
    depths = info(capsys, f"model={tiny_yaml}", "imgsz=64,96")["depths"]
    network = RTDETRNetwork(tiny_config, 80).eval()
    assert [one["decoder_layers"] for one in depths] == [1, 2, 3]
    for one in depths:
        network.set_speed(one["decoder_layers"])
        assert one["gflops"] == pytest.approx(count_flops(network, (64, 96)) / 1e9)


def test_a_checkpoint_shows_its_classes_and_epsilon(tiny_config, tmp_path, capsys):
    network = RTDETRNetwork(tiny_config, 2)
    path = tmp_path / "tiny.pt"
    save_checkpoint(path, Checkpoint(tiny_config, {0: "a", 1: "b"}, network.state_dict()))
    found = info(capsys, f"model={path}")
    assert found["names"] == {"0": "a", "1": "b"}
    assert found["norm_eps"] == 1e-5
    assert found["size_hw"] == [640, 640]
    assert (found["decoder_layers"], found["num_queries"]) == (3, 20)


@pytest.fixture
def edited_state(tiny_config):
    """A network with 8 heads, the number inferred from the shapes."""
    encoder, decoder = replace(tiny_config.encoder, num_heads=8), tiny_config.decoder
    config = replace(tiny_config, encoder=encoder, decoder=replace(decoder, num_heads=8))
    return RTDETRNetwork(config, 2).state_dict()


def test_checksum_and_location_of_the_weights_are_shown(edited_state, tmp_path, capsys):
    path = tmp_path / "official.pth"
    torch.save({"ema": {"module": edited_state}, "model": edited_state}, path)
    found = info(capsys, f"model={path}")
    assert found["origin"] == "official v2 names"
    assert found["file"] == {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "size_bytes": path.stat().st_size,
        "licence": None,
        "weights_from": "ema.module",
        "is_averaged": True,
        "calibration": None,
        "notes": ["weights taken from ema.module", "0 derivable buffers dropped"],
    }
    torch.save({"model": edited_state}, path)
    assert info(capsys, f"model={path}")["file"]["is_averaged"] is None


@pytest.mark.parametrize("is_note", [True, False])  # earlier versions kept Ultralytics' as a note
def test_the_licence_of_a_file_is_shown(is_note, tiny_config, tmp_path, capsys):
    path = tmp_path / "tiny.pt"
    state = RTDETRNetwork(tiny_config, 1).state_dict()
    notes = ("version: 8.4.190", *(["license: AGPL-3.0"] if is_note else []))
    licence = "" if is_note else "AGPL-3.0"
    save_checkpoint(path, Checkpoint(tiny_config, {0: "a"}, state, notes=notes, licence=licence))
    assert run(["info", f"model={path}"]) == 0
    lines = [line.split(None, 2) for line in capsys.readouterr().out.splitlines()]
    assert ["licence,", "weights", "AGPL-3.0"] in lines
    code = [line[2] for line in lines if line[:2] == ["licence,", "code"]]
    assert [line.split(":")[0] for line in code] == ["this toolkit", "RT-DETR of its authors"]
    assert ["note", "version:", "8.4.190"] in lines


def test_an_architecture_has_no_file(tiny_yaml, capsys):
    assert info(capsys, f"model={tiny_yaml}", "imgsz=64")["file"] is None


def test_the_ap_of_the_paper_is_beside_the_depth(capsys):
    assert run(["info", "model=rtdetr-r50m.yaml", "imgsz=64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "decoder layers     3 of 6 run" in lines
    assert lines[-4].split()[0] == "3"
    assert lines[-4].split()[-1] == "51.3"  # RT-DETR-R50-m, as published


def engine_notes(config):
    """Notes as written beside an engine."""
    return {
        "rtdetr_format": 1,
        "names": {"0": "cell"},
        "preprocessing": {"size_hw": [64, 96], "antialias": True},
        "architecture": model_config_to_dict(config),
        "decoder_layers": 2,
        "num_queries": 15,
        "batch": [1, 2, 8],
        "tensorrt": "10.3.0",
        "gpu": "NVIDIA T4",
        "verdict": "passed",
        "plan_sha256": hashlib.sha256(b"plan").hexdigest(),
    }


def test_an_engine_is_described_by_its_notes(tiny_config, tmp_path, capsys):
    notes = engine_notes(tiny_config)
    path = tmp_path / "x.engine"
    save_engine(path, b"plan", parse_notes(notes, path.name))
    assert run(["info", f"model={path}", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["architecture"], found["size_hw"]) == ("tiny", [64, 96])
    assert (found["decoder_layers"], found["num_queries"]) == (2, 15)
    assert found["names"] == {"0": "cell"}
    assert found["file"]["notes"] == [
        "TensorRT 10.3.0 on NVIDIA T4",
        "1 to 8 images, tuned for 2",
        "verdict: passed",
    ]
    notes_file(path).unlink()
    assert run(["info", f"model={path}"]) == 4
    assert "cannot be described without its notes, x.engine.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, None) for key in ("names", "preprocessing", "architecture", "decoder_layers")),
        *((key, None) for key in ("num_queries", "batch", "tensorrt", "gpu", "verdict")),
        ("preprocessing", {"size_hw": [64, 96]}),
        ("architecture", {"name": "tiny"}),
        ("batch", 8),
    ],
)
def test_notes_that_are_incomplete_are_one_sentence(key, value, tiny_config, tmp_path, capsys):
    changed = {**engine_notes(tiny_config), key: value}
    notes = {key: value for key, value in changed.items() if value is not None}
    save_engine(tmp_path / "x.engine", b"plan", parse_notes(notes, "x.engine"))
    assert run(["info", f"model={tmp_path}/x.engine"]) == 4
    printed = capsys.readouterr().err
    assert printed.startswith("Error: x.engine")
    assert printed.count("\n") == 1


def test_a_third_party_export_shows_what_is_known(shared_data, capsys):
    model = shared_data / "weights" / "deimv2_hgnetv2_atto_coco.onnx"
    found = info(capsys, f"model={model}")
    assert (found["origin"], found["architecture"]) == ("third-party export", None)
    assert found["size_hw"] == [320, 320]
    assert found["parameters"] is None
    assert run(["info", f"model={model}"]) == 0
    assert "not recorded in the file" in capsys.readouterr().out
    assert run(["info", f"model={model}", "imgsz=640"]) == 2
    assert "imgsz has no effect" in capsys.readouterr().err
