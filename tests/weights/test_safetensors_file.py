"""Checkpoints in safetensors files."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint
from rtdetr_cli.weights.reader import open_weights
from rtdetr_cli.weights.safetensors_file import write_safetensors


def test_a_checkpoint_survives_a_round_trip(checkpoint, tmp_path):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, checkpoint)
    found = open_weights(path)
    assert found.weights.keys() == checkpoint.weights.keys()
    assert all(torch.equal(found.weights[key], checkpoint.weights[key]) for key in found.weights)
    assert replace(found, weights={}) == replace(checkpoint, weights={})
    with safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()["rtdetr_cli"])
    assert described["names"] == {"0": "Brötchen", "1": "cup"}
    assert described["preprocessing"] == {"size_hw": [320, 416], "antialias": False}


@pytest.mark.parametrize(
    ("described", "sentence"),
    [
        ("{", "its description is not that of a checkpoint"),
        ("[" * 100_000, "its description is not that of a checkpoint"),
        ("[]", "its description is not that of a checkpoint"),
        ('{"version": 1}', "its description is not that of a checkpoint"),
        ('{"version": 9, "names": {}}', "has format version 9; this rtdetr reads 1"),
        ('{"version": 1, "names": {}}', r"a part is missing or invalid \('architecture'\)"),
    ],
)
def test_a_damaged_description_is_a_one_line_error(described, sentence, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"rtdetr_cli": described})
    with pytest.raises(WeightsError, match=sentence):
        open_weights(path)


@pytest.mark.parametrize(("name", "family"), [("dfine-n", "deim"), ("deimv2-atto", None)])
@pytest.mark.parametrize("write", [write_safetensors, save_checkpoint])
def test_networks_with_distributions_survive_a_round_trip(name, family, write, tmp_path):
    """Sections of other kinds, an activation that no shape shows, one box head for all layers."""
    config = load_model_config(name)
    config = replace(config, decoder=replace(config.decoder, activation="silu", reg_scale=8.0))
    training = None if write is write_safetensors else {"epoch": 3}
    names, weights = {0: "cup"}, RTDETRNetwork(config, 1).state_dict()
    written = Checkpoint(config, names, weights, Preprocessing((320, 320)), training)
    path = tmp_path / ("x.safetensors" if training is None else "x.pt")
    write(path, written)
    found = open_weights(path, family=family)
    assert all(torch.equal(found.weights[key], weights[key]) for key in weights)
    assert replace(found, weights={}) == replace(written, weights={})
