"""Distances from distributions, location quality, the gate. Expected values computed by hand."""

from __future__ import annotations

import math

import torch
from torch import nn

from rtdetr_cli.core.distribution import bin_values
from rtdetr_cli.nn.distribution import Gate, LocationQuality, expected_distances
from rtdetr_cli.nn.layers import ACTIVATIONS


def test_a_distance_is_the_expected_value_of_its_bins() -> None:
    bins = torch.tensor([-4.0, 0.0, 4.0])
    corners = torch.tensor([[[[0.0, 0, 0], [0, 0, 99], [99, 0, 0], [math.log(3), 0, 0]]]])
    # the last edge: probabilities 3/5, 1/5, 1/5
    torch.testing.assert_close(
        expected_distances(corners, bins), torch.tensor([[[0.0, 4, -4, -1.6]]])
    )


def test_distances_are_float32_at_least_and_exact_under_autocast() -> None:
    corners = torch.randn(1, 20, 4, 33, generator=torch.Generator().manual_seed(0)).bfloat16()
    bins = bin_values(32, 4.0, torch.empty(0))
    exact = expected_distances(corners.float(), bins)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(expected_distances(corners, bins), exact)
    assert expected_distances(corners.double(), bins.double()).dtype == torch.float64


def test_quality_sees_the_four_largest_probabilities_and_their_mean() -> None:
    quality = LocationQuality(ACTIVATIONS["relu"])
    quality.reg_conf = nn.Identity()
    probabilities = torch.tensor([0.5, 0.05, 0.2, 0.15, 0.1])
    seen = quality(torch.zeros(1, 1, 1), probabilities.log().expand(1, 1, 4, 5))
    expected = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.2375])
    torch.testing.assert_close(seen[0, 0], expected.repeat(4))


def test_quality_adds_the_same_to_all_classes_and_starts_at_zero() -> None:
    torch.manual_seed(0)
    quality = LocationQuality(ACTIVATIONS["silu"])
    logits, corners = torch.randn(2, 3, 5), torch.randn(2, 3, 4, 33)
    assert torch.equal(quality(logits, corners), logits)
    nn.init.normal_(quality.reg_conf.layers[-1].weight)
    added = quality(logits, corners) - logits
    torch.testing.assert_close(added, added[..., :1].expand_as(added), rtol=0, atol=1e-5)
    assert added.abs().max() > 1e-3


def test_the_gate_starts_halfway_and_weighs_each_channel() -> None:
    gate = Gate(2, nn.Identity())
    content, sampled = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[5.0, -2.0]]])
    torch.testing.assert_close(gate(content, sampled), torch.tensor([[[3.0, 0.0]]]))
    gate.gate.bias.data.copy_(torch.tensor([99.0, -99, -99, 99]))  # keep first, take second
    torch.testing.assert_close(gate(content, sampled), torch.tensor([[[1.0, -2.0]]]))
