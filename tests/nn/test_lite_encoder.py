"""The encoder of the smallest DEIMv2, against torch's own functions."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rtdetr_cli.config.model import LiteEncoderConfig
from rtdetr_cli.nn.lite_encoder import GlobalContext, LiteEncoder, PooledConvNorm


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    network = LiteEncoder(LiteEncoderConfig(hidden_dim=12, expansion=0.5), (6,))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return network.double().eval()


@pytest.mark.parametrize("size_hw", [(2, 2), (4, 20), (6, 8)])
def test_one_map_becomes_two(encoder, size_hw):
    height, width = size_hw
    fine, coarse = encoder([torch.randn(1, 6, height, width, dtype=torch.float64)])
    assert fine.shape == (1, 12, height, width)
    assert coarse.shape == (1, 12, height // 2, width // 2)


def test_every_cell_reaches_every_cell(encoder):
    x = torch.randn(1, 6, 8, 8, dtype=torch.float64)
    before = encoder([x])
    x[..., 0, 0] += 1
    for old, new in zip(before, encoder([x]), strict=True):
        assert (old - new).abs().amax(dim=1).min() > 1e-9


def test_pooling_counts_the_zeros_of_the_border():
    pooled = PooledConvNorm(1).eval()
    pooled[1].weight.data.fill_(1)
    x = torch.ones(1, 1, 4, 4)
    expected = F.silu(torch.tensor([[4.0, 6.0], [6.0, 9.0]]) / 9)  # cells of 3x3 in the map
    torch.testing.assert_close(pooled(x)[0, 0], expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(pooled.fused()(x), pooled(x))


def test_the_global_mean_is_added_before_the_convolution():
    context = GlobalContext(1).eval()
    context.cv.conv.weight.data.fill_(1)
    x = torch.tensor([[[[0.0, 1.0], [2.0, 5.0]]]])  # mean 2
    torch.testing.assert_close(context(x), F.silu(x + 2), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("hidden_dim", "width"), [(64, 10), (96, 16), (112, 19)])
def test_the_width_of_a_fusion_block(hidden_dim, width):
    """Atto, Femto and Pico: floor division as in the code of DEIMv2."""
    assert LiteEncoderConfig(hidden_dim=hidden_dim).fusion_width == width
