"""HGNetv2: strides and widths of its maps, and the details that shapes do not show."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rtdetr_cli.nn.backbones.hgnetv2 import (
    ConvBN,
    HGBlock,
    HGNetv2,
    LearnableAffine,
    PaddedConvBN,
)


def test_it_returns_three_maps(tiny_config):
    backbone = HGNetv2(tiny_config.backbone)
    maps = backbone(torch.rand(1, 3, 64, 96))
    assert [tuple(x.shape) for x in maps] == [(1, 16, 8, 12), (1, 16, 4, 6), (1, 32, 2, 3)]
    assert backbone.out_channels == tiny_config.backbone.map_widths[-3:] == (16, 16, 32)


def test_stem_and_stages_are_the_whole_backbone(tiny_config):
    backbone = HGNetv2(tiny_config.backbone)
    stem, *stages = backbone.stem_and_stages
    assert (stem, len(stages)) == (backbone.stem, 4)
    parameters = [id(p) for part in backbone.stem_and_stages for p in part.parameters()]
    assert parameters == [id(p) for p in backbone.parameters()]


def test_only_blocks_after_the_first_of_a_stage_add_their_input(tiny_config):
    backbone = HGNetv2(tiny_config.backbone)
    blocks = [module for module in backbone.modules() if isinstance(module, HGBlock)]
    assert [block.residual for block in blocks] == [False, False, True, False, False]


def test_down_sampling_between_stages_has_no_activation(tiny_config):
    backbone = HGNetv2(tiny_config.backbone)
    for stage in backbone.stages[1:]:
        assert isinstance(stage.downsample.act, nn.Identity)
        assert stage.downsample.conv.groups == stage.downsample.conv.in_channels
    assert isinstance(backbone.stages[0].downsample, nn.Identity)


def three_stages(config, **changes):
    return dataclasses.replace(config.backbone, stages=config.backbone.stages[:3], **changes)


@pytest.mark.parametrize("num_maps", [1, 2])
def test_the_last_maps_of_three_stages(tiny_config, num_maps):
    backbone = HGNetv2(three_stages(tiny_config, num_maps=num_maps))
    maps = backbone(torch.rand(1, 3, 32, 64))
    assert [tuple(x.shape) for x in maps] == [(1, 16, 4, 8), (1, 16, 2, 4)][-num_maps:]
    assert backbone.out_channels == (16, 16)[-num_maps:]


def test_an_affine_block_stands_behind_every_activation_and_nowhere_else(tiny_config):
    backbone = HGNetv2(three_stages(tiny_config, learnable_affine=True))
    convolutions = [module for module in backbone.modules() if isinstance(module, ConvBN)]
    assert len(convolutions) > 20
    for convolution in convolutions:
        is_active = isinstance(convolution.act, nn.ReLU)
        assert isinstance(convolution.lab, LearnableAffine) == is_active
    assert not any(
        name.endswith("lab.scale") for name in HGNetv2(tiny_config.backbone).state_dict()
    )


@pytest.mark.parametrize("scale", [1.5, 0.0, -2.0])
@pytest.mark.parametrize("block", [ConvBN((2, 3), 3, affine=True), PaddedConvBN((2, 3), True)])
def test_the_affine_block_is_applied_after_the_activation_when_fused_too(block, scale):
    block = block.double().eval()
    block.lab.scale.data.fill_(scale)
    block.lab.bias.data.fill_(0.5)
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    expected = scale * F.relu(block.bn(block.conv(x))) + 0.5
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-12)
    fused = block.fused()
    torch.testing.assert_close(fused(x), expected, rtol=0, atol=1e-12)
    assert not any(isinstance(module, LearnableAffine) for module in fused.modules())
