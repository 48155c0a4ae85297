"""ResNet-vd: strides and widths of its maps, and the details that shapes do not show."""

from __future__ import annotations

import torch

from rtdetr_cli.nn.backbones.presnet import PResNet, shortcut


def test_it_returns_three_maps(tiny_presnet_config):
    backbone = PResNet(tiny_presnet_config.backbone)
    maps = backbone(torch.rand(1, 3, 64, 96))
    widths = (32, 32, 32) if tiny_presnet_config.backbone.bottleneck else (8, 8, 8)
    assert backbone.out_channels == widths == tiny_presnet_config.backbone.map_widths[-3:]
    shapes = [
        (1, width, *size) for width, size in zip(widths, ((8, 12), (4, 6), (2, 3)), strict=True)
    ]
    assert [tuple(x.shape) for x in maps] == shapes


def test_stem_and_stages_are_the_whole_backbone(tiny_presnet_config):
    backbone = PResNet(tiny_presnet_config.backbone)
    stem, *stages = backbone.stem_and_stages
    assert (stem, len(stages)) == (backbone.conv1, 4)
    parameters = [id(p) for part in backbone.stem_and_stages for p in part.parameters()]
    assert parameters == [id(p) for p in backbone.parameters()]


def test_the_vd_shortcut_sees_every_pixel():
    """A strided 1x1 convolution would skip three pixels of four."""
    torch.manual_seed(0)
    x = torch.rand(1, 2, 4, 6, requires_grad=True)
    shortcut((2, 3), stride=2).eval()(x).sum().backward()
    assert (x.grad != 0).all()
