"""Affine blocks of HGNetv2 B0 folded away: the same maps, up to a scale and a shift per map."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rtdetr_cli.nn.backbones import build_backbone
from rtdetr_cli.nn.backbones.hgnetv2 import ConvBN
from rtdetr_cli.weights.hgnetv2_affine import fold_affine_blocks


def network(config):
    """A backbone of HG blocks with residuals in two stages, statistics of its own, in float64."""
    torch.manual_seed(0)
    backbone = build_backbone(config.backbone).double().eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.8)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return backbone


def add_affine_blocks(backbone, with_shift):
    """Make every activated convolution end in s * x + b, as in D-FINE; return those tensors."""
    blocks = {}
    for name, module in backbone.named_modules():
        if isinstance(module, ConvBN) and isinstance(module.act, nn.ReLU):
            scale = torch.rand(1, dtype=torch.float64) + 0.5
            shift = torch.rand(1, dtype=torch.float64) - 0.5
            shift *= with_shift and name != "stem.stem1"  # its maxima are padded with zeros
            blocks |= {f"{name}.lab.scale": scale, f"{name}.lab.bias": shift}
            module.register_forward_hook(lambda _m, _i, out, s=scale, b=shift: s * out + b)
    return blocks


def make_circular(backbone):
    """Padding without a border, so that shifts are exact everywhere."""
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "circular"
            module._reversed_padding_repeated_twice = [p for p in module.padding for _ in (0, 1)]
        if isinstance(module, nn.Sequential) and isinstance(module[0], nn.ZeroPad2d):
            module[0] = nn.CircularPad2d((0, 1, 0, 1))


def folded(reference, blocks, config):
    """A plain backbone with the folded tensors."""
    state = {f"backbone.{key}": t for key, t in (reference.state_dict() | blocks).items()}
    weights = fold_affine_blocks(state, config.backbone)
    plain = build_backbone(config.backbone).double().eval()
    plain.load_state_dict({key.removeprefix("backbone."): t for key, t in weights.items()})
    return plain


def check(reference, plain):
    """Each map of the reference is one scale times ours plus one shift, to rounding."""
    image = torch.rand(1, 3, 128, 160, dtype=torch.float64)
    for expected, found in zip(reference(image), plain(image), strict=True):
        assert found.std() > 1e-3
        scale = expected.std() / found.std()
        shift = expected.mean() - scale * found.mean()
        torch.testing.assert_close(scale * found + shift, expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("circular", [False, True])
def test_scales_fold_exactly_and_shifts_where_there_is_no_border(circular, edited_config):
    reference = network(edited_config)
    blocks = add_affine_blocks(reference, with_shift=circular)
    plain = folded(reference, blocks, edited_config)
    if circular:
        make_circular(reference)
        make_circular(plain)
    check(reference, plain)


@pytest.mark.parametrize("name", ["stem.stem1", "stages.0.blocks.1.aggregation_excitation_conv"])
@pytest.mark.parametrize("scale", [-1.0, 0.0, float("nan")])
def test_a_scale_that_cannot_be_folded_is_named(name, scale, edited_config):
    reference = network(edited_config)
    blocks = add_affine_blocks(reference, with_shift=True)
    blocks[f"{name}.lab.scale"] = torch.tensor([scale])
    with pytest.raises(ValueError, match=rf"{name}\.lab\.scale has a sign"):
        folded(reference, blocks, edited_config)
