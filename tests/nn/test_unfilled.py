"""Networks built without initial values, and what building them leaves alone."""

from __future__ import annotations

import torch
from torch import nn

from rtdetr_cli.backends.torch import build_network
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.nn.unfilled import Unfilled


def test_nothing_is_drawn_or_filled():
    linear, before = nn.Linear(3, 2), torch.get_rng_state()
    values = [parameter.clone() for parameter in linear.parameters()]
    with Unfilled():
        linear.reset_parameters()
        nn.init.xavier_uniform_(tensor=linear.weight)
        nn.init.zeros_(linear.bias)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, linear.parameters(), values))
    linear.reset_parameters()
    assert not any(map(torch.equal, linear.parameters(), values))


def test_every_value_of_a_network_comes_from_its_weights(tiny_config, images, monkeypatch):
    torch.manual_seed(0)
    network = RTDETRNetwork(tiny_config, 2).eval()
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(float("nan")))
    copy = build_network(tiny_config, 2, network.state_dict()).eval()
    with torch.inference_mode():
        expected, found = network(images.float()), copy(images.float())
    assert torch.equal(found.pred_logits, expected.pred_logits)
    assert torch.equal(found.pred_boxes, expected.pred_boxes)
