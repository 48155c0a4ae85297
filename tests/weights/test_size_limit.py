"""The size of a network, by arithmetic on its architecture, against the weights in its file."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.config.scale import least_amount
from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint
from rtdetr_cli.weights.size_limit import check_scale


@pytest.mark.parametrize("name", ["rtdetr-n", "rtdetr-l", "rtdetr-h", "rtdetr-r18", "rtdetr-r50"])
def test_least_amount_is_just_below_the_true_size(name):
    config = load_model_config(name)
    with torch.device("meta"):
        state = RTDETRNetwork(config, 80).state_dict()
    tensors, values = least_amount(config, 80)
    total = sum(tensor.numel() for tensor in state.values())
    assert 0.98 * total < values < total
    assert 0.1 * len(state) < tensors < len(state)
    check_scale(Checkpoint(config, dict.fromkeys(range(80), "x"), state), "x.pt")


def test_an_architecture_larger_than_its_weights_is_rejected(tiny_config):
    state = RTDETRNetwork(tiny_config, 2).state_dict()
    wide = replace(tiny_config, encoder=replace(tiny_config.encoder, ffn_dim=2**16))
    with pytest.raises(WeightsError, match=r"x\.pt does not fit: its architecture is larger"):
        check_scale(Checkpoint(wide, {0: "a", 1: "b"}, state), "x.pt")
    state["decoder.enc_score_head.bias"] = torch.zeros(10**9, 0)
    with pytest.raises(WeightsError, match=r"enc_score_head\.bias has no values"):
        check_scale(Checkpoint(tiny_config, {0: "a", 1: "b"}, state), "x.pt")
