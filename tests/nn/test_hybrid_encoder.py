"""AIFI against loops and torch's own attention; which map reaches which."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from rtdetr_cli.config.model import EncoderConfig
from rtdetr_cli.nn.hybrid_encoder import HybridEncoder, position_embedding
from rtdetr_cli.nn.layers import SelfAttention


@pytest.mark.parametrize("size_hw", [(5, 5), (3, 7), (7, 3), (1, 4)])
def test_position_embedding_is_row_major(size_hw):
    height, width = size_hw
    channels = 12
    embedding = position_embedding(torch.empty(1, channels, height, width, dtype=torch.float64))
    quarter = channels // 4
    for row in range(height):
        for column in range(width):
            frequencies = [1 / 10000 ** (step / quarter) for step in range(quarter)]
            expected = [
                *(math.sin(row * frequency) for frequency in frequencies),
                *(math.cos(row * frequency) for frequency in frequencies),
                *(math.sin(column * frequency) for frequency in frequencies),
                *(math.cos(column * frequency) for frequency in frequencies),
            ]
            token = embedding[0, row * width + column]
            assert token.tolist() == pytest.approx(expected, abs=1e-12)


def test_position_embedding_takes_the_dtype_of_the_map():
    embedding = position_embedding(torch.empty(1, 8, 2, 2, dtype=torch.bfloat16))
    assert embedding.dtype == torch.bfloat16


@pytest.mark.parametrize("masked", [False, True])
def test_self_attention_equals_torch_with_the_position_on_query_and_key_only(masked):
    torch.manual_seed(0)
    ours = SelfAttention(hidden_dim=8, num_heads=2).double()
    nn.init.normal_(ours.in_proj_bias)
    theirs = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    theirs.load_state_dict(ours.state_dict())
    x, position = torch.randn(2, 2, 6, 8, dtype=torch.float64)
    allowed = torch.rand(6, 6) < 0.6
    allowed.fill_diagonal_(True)
    forbidden = ~allowed if masked else None
    expected, _ = theirs(x + position, x + position, x, attn_mask=forbidden)
    got = ours(x, position, allowed if masked else None)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def randomized(encoder):
    """In float64 and eval mode, with norms that do something."""
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return encoder.double().eval()


@pytest.mark.parametrize("fusion", ["csp", "elan", "elan_sum"])
@pytest.mark.parametrize("widths", [(4, 6, 8), (6, 8)])
def test_information_flows_from_the_coarsest_map_to_all_and_back(fusion, widths):
    torch.manual_seed(0)
    config = EncoderConfig(hidden_dim=8, fusion=fusion, ffn_dim=16, num_heads=2, num_csp_blocks=1)
    encoder = randomized(HybridEncoder(config, widths))
    sizes_hw = [(16 // 2**level, 24 // 2**level) for level in range(len(widths))]
    maps = [
        torch.randn(1, channels, *size_hw, dtype=torch.float64)
        for channels, size_hw in zip(widths, sizes_hw, strict=True)
    ]
    before = encoder(maps)
    assert [tuple(x.shape) for x in before] == [(1, 8, *size_hw) for size_hw in sizes_hw]
    for level in range(len(widths)):
        changed = [x + (index == level) for index, x in enumerate(maps)]
        after = encoder(changed)
        assert all((new - old).abs().max() > 1e-6 for new, old in zip(after, before, strict=True))


def test_a_map_of_the_right_width_enters_deimv2_as_it_is():
    """D-FINE and RT-DETR project it all the same."""
    config = EncoderConfig(hidden_dim=8, fusion="elan_sum", num_heads=2)
    projections = HybridEncoder(config, (8, 16)).input_proj
    assert [isinstance(project, nn.Identity) for project in projections] == [True, False]
    concatenated = HybridEncoder(replace(config, fusion="elan"), (8, 16)).input_proj
    assert not any(isinstance(project, nn.Identity) for project in concatenated)


@pytest.mark.parametrize(
    ("fusion", "hidden_dim", "expansion", "width"),
    # arXiv 2304.08069's R18, and rows of rounded expansions in the code of D-FINE and DEIMv2
    [
        ("csp", 256, 0.5, 128),
        ("elan", 128, 0.34, 21),
        ("elan", 256, 0.5, 64),
        ("elan", 384, 1.0, 192),
        ("elan_sum", 128, 0.34, 21),
    ],
)
def test_the_width_of_a_fusion_block(fusion, hidden_dim, expansion, width):
    config = EncoderConfig(hidden_dim=hidden_dim, fusion=fusion, expansion=expansion)
    assert config.fusion_width == width
