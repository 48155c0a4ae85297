"""Checkpoints written for the official repository."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.core.coco_classes import COCO_NAMES
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint
from rtdetr_cli.weights.foreign import read_foreign
from rtdetr_cli.weights.reader import open_weights
from rtdetr_cli.weights.write_official import (
    at_epsilon,
    official_anchors,
    official_settings,
    official_state,
    write_official,
)


def same(weights, state):
    return weights.keys() == state.keys() and all(torch.equal(weights[k], state[k]) for k in state)


@pytest.mark.parametrize(
    ("architecture", "table"),
    [("rtdetr-r18", "official_v2_r18vd"), ("rtdetr-l", "official_hgnetv2_l")],
)
def test_official_states_have_every_key_and_shape_of_the_official_network(architecture, table, kit):
    config = load_model_config(architecture)
    with torch.device("meta"):
        weights = RTDETRNetwork(config, 80).state_dict()
    weights = {key: torch.empty(tensor.shape) for key, tensor in weights.items()}
    state = official_state(Checkpoint(config, dict(COCO_NAMES), weights))
    assert {key: list(tensor.shape) for key, tensor in state.items()} == kit.shapes[table]
    assert state["decoder.valid_mask"].dtype == torch.bool
    assert state["decoder.input_proj.0.norm.num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize(
    "file", ["dfine_n", "dfine_l", "dfine_x", "deimv2_atto", "deimv2_n", "deim_rtdetrv2_r18"]
)
def test_files_of_dfine_and_deim_come_back_bit_by_bit(file, kit):
    """Names, dtypes and values; L and X of D-FINE have frozen norms, without counters."""
    state = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in kit.filled_state(kit.shapes[file]).items()
    }
    found = official_state(read_foreign(dict(state), f"{file}.pth"))
    assert {key: list(tensor.shape) for key, tensor in found.items()} == kit.shapes[file]
    assert all(found[name].dtype == tensor.dtype for name, tensor in state.items())
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_settings_say_the_activation_that_tensors_do_not_show(kit):
    checkpoint = read_foreign(kit.meta_state(kit.shapes["rtdetrv4_s"]), "x.pth")
    settings = official_settings(checkpoint)
    assert (settings["activation"], settings["mlp_act"]) == ("silu", "silu")
    assert not checkpoint.config.recipe.freeze_backbone_norm


def test_an_official_file_is_a_training_checkpoint_that_comes_back(checkpoint, tmp_path):
    config = replace(checkpoint.config, norm_eps=1e-5)
    write_official(tmp_path / "x.pth", replace(checkpoint, config=config, licence="MIT, here"))
    content = torch.load(tmp_path / "x.pth", weights_only=True)
    assert content["ema"].keys() == {"module", "updates"}
    assert content["model"].keys() == content["ema"]["module"].keys()
    found = open_weights(tmp_path / "x.pth")
    assert same(found.weights, checkpoint.weights)
    assert found.licence == "MIT, here"
    assert "weights taken from ema.module" in found.notes
    assert (tmp_path / "x.pth").stat().st_size < 1.5 * sum(
        tensor.nbytes for tensor in content["model"].values()
    ) + 500_000  # model and average are stored once


def test_official_anchors_are_those_of_the_paper_at_640():
    found = official_anchors((640, 640), (8, 16, 32))
    anchors, is_valid = found["decoder.anchors"], found["decoder.valid_mask"]
    assert anchors.shape == (1, 8400, 4)
    # official-rtdetr.md 3.1: 8084 of 8400 cells are valid, all of strides 16 and 32
    assert is_valid.sum() == 8084
    assert is_valid[0, 6400:].all()
    assert torch.isinf(anchors[0, ~is_valid[0, :, 0]]).all()
    middle = anchors[0, 40 * 80 + 40].sigmoid()
    assert middle.tolist() == pytest.approx([40.5 / 80, 40.5 / 80, 0.05, 0.05], abs=1e-6)


def test_norms_of_another_epsilon_compute_the_same(checkpoint):
    key = "backbone.stem.stem1.bn."
    moved = at_epsilon(checkpoint, 1e-5)
    x = torch.randn(1, 6, 4, 4)

    def norm(weights, eps):
        kinds = ("running_mean", "running_var", "weight", "bias")
        return torch.nn.functional.batch_norm(x, *(weights[key + kind] for kind in kinds), eps=eps)

    assert torch.allclose(norm(moved, 1e-5), norm(checkpoint.weights, 1e-3), atol=1e-6)
    assert not torch.allclose(norm(checkpoint.weights, 1e-5), norm(checkpoint.weights, 1e-3))


def test_settings_for_the_official_yaml(checkpoint):
    decoder = replace(checkpoint.config.decoder, eval_layers=3, sampling="discrete")
    config = replace(checkpoint.config, decoder=decoder)
    assert official_settings(replace(checkpoint, config=config)) == {
        "num_classes": 2,
        "eval_spatial_size": [320, 416],
        "num_queries": 300,
        "eval_idx": 2,
        "cross_attn_method": "discrete",
    }
