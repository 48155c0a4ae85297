"""Architectures inferred from the shapes of a state dict."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.architecture import Facts
from rtdetr_cli.weights.foreign import read_foreign


@pytest.mark.parametrize("name", ["n", "r34", "r101", "h"])
def test_shipped_architectures_are_inferred_from_shapes(name):
    config = load_model_config(f"rtdetr-{name}")
    with torch.device("meta"):
        state = RTDETRNetwork(config, 7).state_dict()
    checkpoint = read_foreign(state, "x")
    assert checkpoint.config == config
    assert checkpoint.names == {i: f"class{i}" for i in range(7)}


def test_an_edited_architecture_is_inferred_from_shapes(edited_config):
    state = RTDETRNetwork(edited_config, 2).state_dict()
    assert read_foreign(state, "x").config == edited_config


def test_metadata_of_the_file_takes_precedence(edited_config):
    config = replace(
        edited_config,
        norm_eps=1e-4,
        encoder=replace(edited_config.encoder, num_heads=4),
        decoder=replace(
            edited_config.decoder, num_heads=4, num_queries=50, eval_layers=2, sampling="discrete"
        ),
    )
    facts = Facts(
        norm_eps=1e-4,
        num_heads=4,
        encoder_heads=4,
        num_queries=50,
        eval_layers=2,
        sampling="discrete",
        names={0: "a", 1: "b"},
        size_hw=(64, 96),
    )
    checkpoint = read_foreign(RTDETRNetwork(config, 2).state_dict(), "x", facts)
    assert checkpoint.config == config
    assert checkpoint.names == {0: "a", 1: "b"}
    assert checkpoint.preprocessing.size_hw == (64, 96)
