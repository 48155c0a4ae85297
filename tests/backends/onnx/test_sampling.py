"""Deformable sampling with GridSample and with gathers."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from rtdetr_cli.backends.onnx.sampling import GatherSampler, GridSampler
from rtdetr_cli.config.model import DecoderConfig
from rtdetr_cli.nn.deformable_attention import DeformableAttention


@pytest.mark.parametrize("sampler", [GridSampler, GatherSampler])
def test_samplers_equal_grid_sample(sampler):
    """Locations inside, at the border and far outside; the weighted sum is computed by hand."""
    config = DecoderConfig(hidden_dim=8, num_heads=2, num_points=(2, 1, 1))
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(3, 8, *size, generator=generator) for size in ((6, 8), (3, 4), (1, 2))]
    grid = torch.rand(3, 2, 5, 4, 2, generator=generator) * 3 - 1.5
    weights = torch.rand(3, 2, 5, 4, generator=generator)
    expected = torch.zeros(3, 5, 8)
    for image, head, (point, level) in (
        (image, head, place)
        for image in range(3)
        for head in range(2)
        for place in enumerate((0, 0, 1, 2))
    ):
        values = maps[level][image, 4 * head : 4 * head + 4]
        places = grid[image, head, :, point]
        sampled = F.grid_sample(values[None], places[None, None], align_corners=False)[0, :, 0].T
        expected[image, :, 4 * head : 4 * head + 4] += (
            weights[image, head, :, point, None] * sampled
        )
    found = sampler(DeformableAttention(config))(maps, grid, weights)
    torch.testing.assert_close(found, expected.flatten(0, 1), atol=5e-6, rtol=0)
