"""Backbones: strides and widths of their maps, and the details that shapes do not show."""

from __future__ import annotations

import torch
from torch import nn

from rtdetr_cli.nn.backbones import build_backbone
from rtdetr_cli.nn.backbones.hgnetv2 import HGBlock
from rtdetr_cli.nn.backbones.presnet import shortcut


def test_hgnetv2_gives_three_maps(tiny_config):
    backbone = build_backbone(tiny_config.backbone)
    maps = backbone(torch.rand(1, 3, 64, 96))
    assert [tuple(x.shape) for x in maps] == [(1, 16, 8, 12), (1, 16, 4, 6), (1, 32, 2, 3)]
    assert backbone.out_channels == (16, 16, 32)


def test_presnet_gives_three_maps(tiny_presnet_config):
    backbone = build_backbone(tiny_presnet_config.backbone)
    maps = backbone(torch.rand(1, 3, 64, 96))
    widths = (32, 32, 32) if tiny_presnet_config.backbone.bottleneck else (8, 8, 8)
    assert backbone.out_channels == widths
    shapes = [
        (1, width, *size) for width, size in zip(widths, ((8, 12), (4, 6), (2, 3)), strict=True)
    ]
    assert [tuple(x.shape) for x in maps] == shapes


def test_the_vd_shortcut_sees_every_pixel():
    """A strided 1x1 convolution would skip three pixels of four."""
    torch.manual_seed(0)
    x = torch.rand(1, 2, 4, 6, requires_grad=True)
    shortcut((2, 3), stride=2).eval()(x).sum().backward()
    assert (x.grad != 0).all()


def test_only_blocks_after_the_first_of_a_stage_add_their_input(tiny_config):
    backbone = build_backbone(tiny_config.backbone)
    blocks = [module for module in backbone.modules() if isinstance(module, HGBlock)]
    assert [block.residual for block in blocks] == [False, False, True, False, False]


def test_down_sampling_between_stages_has_no_activation(tiny_config):
    backbone = build_backbone(tiny_config.backbone)
    for stage in backbone.stages[1:]:
        assert isinstance(stage.downsample.act, nn.Identity)
        assert stage.downsample.conv.groups == stage.downsample.conv.in_channels
    assert isinstance(backbone.stages[0].downsample, nn.Identity)
