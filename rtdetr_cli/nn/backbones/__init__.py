"""Backbones, one file each; they return maps S3, S4, S5 of strides 8, 16, 32, or some of them."""

from __future__ import annotations

from rtdetr_cli.config.model import HGNetv2Config, PResNetConfig
from rtdetr_cli.nn.backbones.hgnetv2 import HGNetv2
from rtdetr_cli.nn.backbones.presnet import PResNet


def build_backbone(config: HGNetv2Config | PResNetConfig) -> HGNetv2 | PResNet:
    """The backbone that a `backbone:` section describes."""
    return HGNetv2(config) if isinstance(config, HGNetv2Config) else PResNet(config)
