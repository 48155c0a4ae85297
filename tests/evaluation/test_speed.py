"""Counts against values computed by hand."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from rtdetr_cli.evaluation.speed import count_flops, count_parameters


class ConvThenAttention(nn.Module):
    """A 3x3 convolution and single-head attention over its pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.register_buffer("table", torch.zeros(5))

    def forward(self, images):
        tokens = self.conv(images).flatten(2).transpose(1, 2)[:, None]
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


def test_parameters_are_counted_frozen_or_not_and_buffers_are_not():
    module = ConvThenAttention()
    module.conv.bias.requires_grad_(False)
    assert count_parameters(module) == 8 * 3 * 9 + 8


def test_flops_are_two_per_multiply_accumulate_with_attention():
    module = ConvThenAttention().train()
    pixels = 4 * 6
    conv = pixels * 8 * 3 * 9
    attention = 2 * pixels * pixels * 8
    assert count_flops(module, (8, 12)) == 2 * (conv + attention)
    assert module.training
    assert module.conv.weight.device.type == "cpu"
