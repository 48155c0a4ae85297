"""Blocks that fuse two maps: one convolution for many, and the order of their parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rtdetr_cli.nn.fusion_blocks import (
    CSPLayer,
    ELANBlock,
    RepVGGBlock,
    SeparableDownsample,
    SplitCSPLayer,
)


def test_a_repvgg_block_equals_its_single_convolution():
    torch.manual_seed(0)
    block = RepVGGBlock(6).double().eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(block.fused()(x), block(x), rtol=0, atol=1e-12)


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(2, 6, 5, 7, dtype=torch.float64)


def test_the_second_half_of_a_split_csp_layer_enters_the_blocks(x):
    """The layer with two convolutions, whose first is the second half of the one."""
    split = SplitCSPLayer((6, 4), num_blocks=2).double().eval()
    apart = CSPLayer((6, 4), num_blocks=2).double().eval()
    weight = split.conv1.conv.weight.detach()
    apart.conv1.conv.weight.data, apart.conv2.conv.weight.data = weight[4:], weight[:4]
    apart.bottlenecks.load_state_dict(split.bottlenecks.state_dict())
    torch.testing.assert_close(split(x), apart(x), rtol=0, atol=1e-12)


def test_an_elan_block_aggregates_both_halves_and_both_layers(x):
    """Without cv3 and with cv4 as the identity, its parts are visible."""
    block = ELANBlock((6, 4), inner=2, num_blocks=1).double().eval()
    block.cv4, block.cv3 = nn.Identity(), nn.Identity()
    parts = block(x)
    halves = block.cv1(x)
    assert parts.shape == (2, 4 + 4 + 2 + 2, 5, 7)
    torch.testing.assert_close(parts[:, :8], halves, rtol=0, atol=1e-12)
    torch.testing.assert_close(parts[:, 8:10], block.cv2(halves[:, 4:]), rtol=0, atol=1e-12)
    torch.testing.assert_close(parts[:, 10:], parts[:, 8:10], rtol=0, atol=0)


def test_down_sampling_is_a_pointwise_then_a_depthwise_convolution_without_activation(x):
    down = SeparableDownsample(6).double().eval()
    assert down(x[..., :6, :]).shape == (2, 6, 3, 4)
    assert (down.cv1.conv.groups, down.cv2.conv.groups) == (1, 6)
    torch.testing.assert_close(down(-x), -down(x), rtol=0, atol=1e-12)
