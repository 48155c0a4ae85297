"""`family=` in every mode that opens weights, and in Python, for a file that does not say it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rtdetr_cli import RTDETR
from rtdetr_cli.cli.main import run
from rtdetr_cli.config.model import FDRDecoderConfig
from rtdetr_cli.core.errors import UsageError, WeightsError
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint, load_checkpoint
from rtdetr_cli.weights.write_official import write_official
from tests.engine.conftest import write_architecture


@pytest.fixture
def unnamed(tiny_config, tmp_path, monkeypatch):
    """A training file of a tiny D-FINE or DEIM: best_stg2.pth, as both call it."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    decoder = FDRDecoderConfig(hidden_dim=16, ffn_dim=32, num_layers=2, num_queries=20)
    encoder = replace(tiny_config.encoder, fusion="elan", num_heads=8)
    config = replace(tiny_config, decoder=decoder, encoder=encoder)
    weights = RTDETRNetwork(config, 2).state_dict()
    write_official(tmp_path / "best_stg2.pth", Checkpoint(config, {0: "green", 1: "red"}, weights))
    return "best_stg2.pth"


@pytest.fixture
def words(unnamed, squares):
    data, small = f"data={squares / 'data.yaml'}", ["imgsz=64", "device=cpu"]
    return {
        "info": [f"model={unnamed}"],
        "convert": [f"model={unnamed}"],
        "predict": [f"model={unnamed}", f"source={squares / 'images/val'}", *small],
        "val": [f"model={unnamed}", data, *small, "workers=0", "plots=false"],
        "export": [f"model={unnamed}", "verify=false", *small],
        "benchmark": [f"model={unnamed}", "formats=torch", "runs=1", "batch=1", *small],
        "tradeoff": [
            *(f"model={unnamed}", data, *small, "workers=0", "resamples=100", "runs=1"),
            *("decoder_layers=2", "num_queries=20", "half=false", "max_drop=100"),
        ],
        "train": [
            *(f"model={unnamed}", data, *small, "workers=0", "epochs=1", "batch=4"),
            *("plots=false", "amp=false"),
        ],
    }


@pytest.mark.parametrize(
    "mode",
    [
        *("info", "convert", "predict", "val"),
        *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("export", "benchmark")),
        *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("tradeoff", "train")),
    ],
)
def test_every_mode_takes_the_key(mode, words, capsys):
    assert run([mode, *words[mode]]) == 4
    assert (
        "best_stg2.pth fits D-FINE, whose decoder has ReLU, as well as" in capsys.readouterr().err
    )
    assert run([mode, *words[mode], "family=deim"]) == 0


def test_convert_records_it(unnamed, words, tmp_path):
    assert run(["convert", *words["convert"], "family=deim"]) == 0
    found = load_checkpoint(tmp_path / "best_stg2.pt")
    assert found.config.decoder.activation == "silu"
    assert run(["convert", "model=best_stg2.pt", "family=dfine", "out=x.pt"]) == 4
    assert not (tmp_path / "x.pt").exists()


def test_python_takes_it_where_the_model_is_opened(unnamed, tmp_path):
    with pytest.raises(WeightsError, match="say which with family=dfine"):
        RTDETR(unnamed, "cpu")
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    boxes = {}
    for family in ("dfine", "deim"):
        model = RTDETR(unnamed, "cpu", family=family)
        boxes[family] = model(image, imgsz=64, conf=0.0)[0].boxes.xyxy
        model.info(verbose=False)
        model.save(f"{family}.pt")
        saved = RTDETR(f"{family}.pt", "cpu")(image, imgsz=64, conf=0.0)
        assert torch.equal(saved[0].boxes.xyxy, boxes[family])
    assert not torch.equal(boxes["dfine"], boxes["deim"])


@pytest.mark.parametrize("model", ["rtdetr-n.yaml", "a.onnx"])
def test_it_is_refused_where_it_has_no_effect(model, capsys):
    assert run(["predict", f"model={model}", "source=x.jpg", "family=deim"]) == 2
    assert f"family has no effect on {model}, which is" in capsys.readouterr().err
    with pytest.raises(UsageError, match="family has no effect"):
        RTDETR("rtdetr-n.yaml", "cpu", family="deim")


def test_weights_for_the_other_activation_do_not_start_a_training(unnamed, words, tmp_path, capsys):
    given = [word for word in words["train"] if not word.startswith("model=")]
    assert run(["convert", f"model={unnamed}", "family=deim", "out=deim.pt"]) == 0
    config = load_checkpoint("deim.pt").config
    relu = replace(config, decoder=replace(config.decoder, activation="relu"))
    write_architecture(relu, tmp_path / "relu.yaml")
    assert run(["train", "model=relu.yaml", "pretrained=deim.pt", *given]) == 4
    sentence = "deim.pt was trained with decoder.activation silu, but relu has relu"
    assert sentence in capsys.readouterr().err
