"""HGNetv2: strides and widths of its maps, and the details that shapes do not show."""

from __future__ import annotations

import torch
from torch import nn

from rtdetr_cli.nn.backbones.hgnetv2 import HGBlock, HGNetv2


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
