"""Deformable attention against loops over queries, heads, levels and points, in float64.

Bilinear: RT-DETR with four points per level; pixel centres lie at half integers and everything
outside is zero (Deformable DETR section 4.1). Discrete: RT-DETRv2 section 3.2.
"""

from __future__ import annotations

import math

import pytest
import torch

from rtdetr_cli.config.model import DecoderConfig
from rtdetr_cli.nn.deformable_attention import (
    DeformableAttention,
    _sample_bilinear,
    _sample_nearest,
)

SIZES_HW = [(4, 6), (2, 3), (1, 2)]
POINTS = (3, 1, 2)
HEADS, WIDTH = 2, 8


def attention(sampling: str) -> DeformableAttention:
    torch.manual_seed(0)
    config = DecoderConfig(hidden_dim=WIDTH, num_heads=HEADS, num_points=POINTS, sampling=sampling)
    module = DeformableAttention(config).double()
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return module


def inputs(batch: int = 2, queries: int = 5):
    generator = torch.Generator().manual_seed(1)
    tokens = sum(height * width for height, width in SIZES_HW)
    query, memory = (
        torch.randn(batch, count, WIDTH, generator=generator, dtype=torch.float64)
        for count in (queries, tokens)
    )
    boxes = torch.rand(batch, queries, 4, generator=generator, dtype=torch.float64)
    return query, boxes, memory


def bilinear(values, x, y):
    """`values` (H, W, D) at (x, y) in 0..1: the four pixels around, zero outside."""
    height, width, depth = values.shape
    column, row = x * width - 0.5, y * height - 0.5
    total = torch.zeros(depth, dtype=values.dtype)
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            if 0 <= i < height and 0 <= j < width:
                total += (1 - abs(row - i)) * (1 - abs(column - j)) * values[i, j]
    return total


def nearest(values, x, y):
    """The pixel that holds (x, y) moved by half a pixel, clamped to each side's own border."""
    height, width, _ = values.shape
    row = min(max(math.floor(y * height + 0.5), 0), height - 1)
    column = min(max(math.floor(x * width + 0.5), 0), width - 1)
    return values[row, column]


def slow_attention(module, query, boxes, memory, sample):
    """One number at a time, from the module's four linear layers."""
    values = module.value_proj(memory)
    offsets = module.sampling_offsets(query)
    weights = module.attention_weights(query)
    depth, total_points = WIDTH // HEADS, sum(POINTS)
    mixed = torch.zeros_like(query)
    for b in range(len(query)):
        for q in range(query.shape[1]):
            centre_x, centre_y, box_width, box_height = boxes[b, q].tolist()
            for head in range(HEADS):
                columns = slice(head * depth, (head + 1) * depth)
                share = weights[b, q, head * total_points : (head + 1) * total_points].softmax(0)
                start, point = 0, 0
                for (height, width), count in zip(SIZES_HW, POINTS, strict=True):
                    level = values[b, start : start + height * width, columns]
                    level = level.reshape(height, width, depth)
                    start += height * width
                    for _ in range(count):
                        index = 2 * (head * total_points + point)
                        dx, dy = offsets[b, q, index : index + 2].tolist()
                        x = centre_x + dx / count * 0.5 * box_width
                        y = centre_y + dy / count * 0.5 * box_height
                        mixed[b, q, columns] += share[point] * sample(level, x, y)
                        point += 1
    return module.output_proj(mixed)


@pytest.mark.parametrize(("sampling", "sample"), [("bilinear", bilinear), ("discrete", nearest)])
def test_attention_equals_the_loops_on_rectangles(sampling, sample):
    module = attention(sampling)
    query, boxes, memory = inputs()
    with torch.no_grad():
        got = module(query, boxes, memory, SIZES_HW)
        expected = slow_attention(module, query, boxes, memory, sample)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_discrete_sampling_reaches_the_far_end_of_both_sides():
    """The official clamp uses the height for both sides and misses the right of a wide map."""
    values = torch.arange(12.0, dtype=torch.float64).reshape(1, 1, 2, 6)
    far = torch.full((1, 2, 1, 2), 1.7, dtype=torch.float64)
    assert _sample_nearest(values, far).unique().tolist() == [11.0]


def test_sampling_starts_on_rings_around_the_box():
    config = DecoderConfig(hidden_dim=256, num_heads=8)
    module = DeformableAttention(config)
    offsets = module.sampling_offsets.bias.reshape(8, 12, 2)
    assert module.sampling_offsets.weight.count_nonzero() == 0
    radii = offsets.abs().amax(dim=-1)
    torch.testing.assert_close(radii, torch.tensor([1.0, 2, 3, 4] * 3).expand(8, -1))
    first = offsets[:, 0]
    expected = torch.tensor(
        [[1.0, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1]]
    )
    torch.testing.assert_close(first, expected, rtol=0, atol=1e-6)


def test_all_points_weigh_the_same_at_the_start():
    module = DeformableAttention(DecoderConfig(hidden_dim=WIDTH, num_heads=HEADS))
    assert module.attention_weights.weight.count_nonzero() == 0
    assert module.attention_weights.bias.count_nonzero() == 0


def test_sampling_in_half_precision_finds_the_place_to_a_fraction_of_a_pixel():
    """Pixel columns as values, which bfloat16 holds exactly; rounded places were 0.4 px off."""
    columns = torch.arange(128.0).bfloat16().expand(1, 1, 128, 128)
    places = 0.05 + 0.9 * torch.rand(1, 5, 4, 2, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        sampled = _sample_bilinear(columns, places)
    assert sampled.dtype == torch.float32
    torch.testing.assert_close(sampled[0, 0], places[0, ..., 0] * 128 - 0.5, rtol=0, atol=1e-3)


def test_offsets_to_whole_pixels_are_not_trained():
    """Rounding has no gradient; a parameter without a gradient would stop distributed training."""
    trained = {name for name, one in attention("discrete").named_parameters() if one.requires_grad}
    frozen = {name for name, _ in attention("bilinear").named_parameters()} - trained
    assert frozen == {"sampling_offsets.weight", "sampling_offsets.bias"}
