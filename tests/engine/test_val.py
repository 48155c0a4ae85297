"""Validation through the real command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rtdetr_cli.cli.main import run
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint


@pytest.fixture
def checkpoint(tiny_config, tmp_path: Path) -> Path:
    """Random weights whose boxes are spread over the image."""
    torch.manual_seed(3)
    network = RTDETRNetwork(tiny_config, num_classes=2)
    for head in (network.decoder.enc_bbox_head, *network.decoder.dec_bbox_head):
        torch.nn.init.normal_(head.layers[-1].weight, std=0.5)
    names = {0: "green", 1: "red"}
    path = tmp_path / "tiny.pt"
    save_checkpoint(path, Checkpoint(tiny_config, names, network.state_dict()))
    return path


def val(checkpoint: Path, data: Path, project: Path, *more: str) -> list[str]:
    words = [f"model={checkpoint}", f"data={data}", f"project={project}", "imgsz=64", "workers=0"]
    return ["val", *words, "device=cpu", *more]


def test_the_metrics_equal_pycocotools_on_the_saved_detections(
    checkpoint, squares, tmp_path, capsys
):
    words = val(checkpoint, squares / "data.yaml", tmp_path, "save_json", "json", "batch=3")
    assert run(words) == 0
    printed = json.loads(capsys.readouterr().out)
    dataset = open_split(load_data(squares / "data.yaml"), "val")
    truth = COCO()
    truth.dataset = dataset.ground_truth()
    truth.createIndex()
    found = truth.loadRes(str(tmp_path / "val" / "predictions.json"))
    oracle = COCOeval(truth, found, "bbox")
    oracle.evaluate()
    oracle.accumulate()
    oracle.summarize()
    assert list(printed["stats"].values()) == pytest.approx(list(oracle.stats), abs=1e-3)
    assert oracle.stats[8] > 0.01  # AR100: some random boxes overlap squares
    assert (tmp_path / "val" / "BoxPR_curve.png").stat().st_size > 1000


def test_fewer_decoder_layers_and_queries_run(checkpoint, squares, tmp_path, capsys):
    data = squares / "data.yaml"
    run(val(checkpoint, data, tmp_path, "json", "plots=false"))
    full = json.loads(capsys.readouterr().out)
    words = ("json", "plots=false", "decoder_layers=1", "num_queries=5")
    assert run(val(checkpoint, data, tmp_path, *words)) == 0
    fast = json.loads(capsys.readouterr().out)
    assert fast["stats"]["AR100"] != full["stats"]["AR100"]
    assert run(val(checkpoint, data, tmp_path, "decoder_layers=9")) == 2
    assert "3 decoder layers" in capsys.readouterr().err


def test_a_model_with_different_classes_is_rejected(checkpoint, squares, tmp_path, capsys):
    other = tmp_path / "other.yaml"
    other.write_text(f"path: {squares}\nval: images/val\nnames: [blue, green, red]\n")
    assert run(val(checkpoint, other, tmp_path)) == 2
    error = capsys.readouterr().err
    assert "the model knows 2 classes (green, red)" in error
    assert "the data set 3 (blue, green, red)" in error


def test_a_missing_split_is_named(checkpoint, squares, tmp_path, capsys):
    assert run(val(checkpoint, squares / "data.yaml", tmp_path, "split=test")) == 3
    assert "test" in capsys.readouterr().err


# Published metrics of a trained file, from its README: AP .4086 / AP50 .6947 on val and .3905 /
# .7013 on test with a score threshold of .001; without a threshold they may differ by .003.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "ap", "ap50"), [("val", 0.4086, 0.6947), ("test", 0.3905, 0.7013)]
)
def test_a_file_trained_by_ultralytics_keeps_its_ap(split, ap, ap50, shared_data, tmp_path, capsys):
    trained = shared_data / "weights" / "ultralytics_n_bccd.pt"
    words = [f"model={trained}", f"data={shared_data / 'bccd'}", f"split={split}", "json"]
    assert run(["val", *words, f"project={tmp_path}", "workers=0"]) == 0
    stats = json.loads(capsys.readouterr().out)["stats"]
    assert stats["AP"] == pytest.approx(ap, abs=0.003)
    assert stats["AP50"] == pytest.approx(ap50, abs=0.003)


def test_check_names_every_problem(squares, tmp_path, capsys):
    assert run(["check", f"data={squares / 'data.yaml'}", "json"]) == 0
    counts = json.loads(capsys.readouterr().out)["splits"]
    assert counts["train"]["pictures"] == 9
    assert counts["train"]["boxes"] == {"green": 9, "red": 4}
    assert not math.isnan(counts["val"]["background"])
    broken = tmp_path / "images"
    broken.mkdir()
    (tmp_path / "labels").mkdir()
    (broken / "a.png").write_bytes(next((squares / "images" / "val").iterdir()).read_bytes())
    (tmp_path / "labels" / "a.txt").write_text("7 0.5 0.5 0.2 0.2\n")
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [green, red]\n")
    assert run(["check", f"data={tmp_path / 'data.yaml'}"]) == 3
    error = capsys.readouterr().err
    assert "a.txt" in error
    assert "7" in error
