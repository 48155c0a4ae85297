"""AIFI's position embedding and the fusion blocks, against loops and torch's own attention."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from rtdetr_cli.config.model import EncoderConfig
from rtdetr_cli.nn.hybrid_encoder import HybridEncoder, RepVGGBlock, position_embedding
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


def test_information_flows_from_the_coarsest_map_to_all_and_back():
    torch.manual_seed(0)
    config = EncoderConfig(hidden_dim=8, ffn_dim=16, num_heads=2, num_csp_blocks=1)
    encoder = HybridEncoder(config, (4, 6, 8)).double().eval()
    maps = [
        torch.randn(1, channels, 16 // stride, 24 // stride, dtype=torch.float64)
        for channels, stride in ((4, 1), (6, 2), (8, 4))
    ]
    before = encoder(maps)
    assert [tuple(x.shape) for x in before] == [(1, 8, 16, 24), (1, 8, 8, 12), (1, 8, 4, 6)]
    for level in range(3):
        changed = [x + (index == level) for index, x in enumerate(maps)]
        after = encoder(changed)
        assert all((new - old).abs().max() > 1e-6 for new, old in zip(after, before, strict=True))
