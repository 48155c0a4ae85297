"""Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159; RT-DETRv2 section 2.1).

Legend: B batch, Q queries, C hidden_dim, M heads, D = C / M, L levels, P points of all levels,
N = sum of H * W over the levels.
"""

from __future__ import annotations

import math
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtdetr_cli.config.model import DecoderConfig


class DeformableSampling(nn.Module):
    """A weighted sum of a few points on each map, around a box (D-FINE, DEIM, RT-DETRv4)."""

    offset_scale = 0.5

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.num_heads, self.num_points = config.num_heads, config.num_points
        self.discrete = config.sampling == "discrete"
        total_points = self.num_heads * sum(self.num_points)
        self.sampling_offsets = nn.Linear(config.hidden_dim, total_points * 2)
        self.attention_weights = nn.Linear(config.hidden_dim, total_points)
        self._init_sampling()

    def _init_sampling(self) -> None:
        """Points start on rings of radius 1..P around the box centre, one direction per head."""
        angle = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        direction = torch.stack((angle.cos(), angle.sin()), dim=-1)
        direction = direction / direction.abs().amax(dim=-1, keepdim=True)  # (M, 2)
        radius = torch.cat([torch.arange(1, points + 1) for points in self.num_points])  # (P,)
        ring = direction[:, None] * radius[None, :, None]  # (M, P, 2)
        nn.init.zeros_(self.sampling_offsets.weight)
        self.sampling_offsets.bias.data.copy_(ring.flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        # Rounding to whole pixels has no gradient, so offsets are fixed (RT-DETRv2 section 2.1).
        self.sampling_offsets.requires_grad_(not self.discrete)

    def attend(self, query: Tensor, boxes: Tensor, maps: list[Tensor]) -> Tensor:
        """Sample the maps around each query's box.

        Args:
            query: (B, Q, C).
            boxes: (B, Q, 4) reference boxes, cxcywh in 0..1.
            maps: (B * M, D, H, W) per level, from `split_maps`.

        Returns:
            (B, Q, C).
        """
        points, heads = list(self.num_points), self.num_heads
        locations = self._sampling_locations(query, boxes).split(points, dim=1)
        weights = self._per_point(self.attention_weights(query)).softmax(dim=1)  # (B * M, P, Q)
        sample = _sample_nearest if self.discrete else _sample_bilinear
        levels = zip(maps, locations, weights.split(points, dim=1), strict=True)
        parts = [
            (sample(values, places) * weight[:, None]).sum(dim=2)  # (B * M, D, Q)
            for values, places, weight in levels
        ]
        out: Tensor = reduce(torch.add, parts).unflatten(0, (-1, heads)).flatten(1, 2)
        return out.transpose(1, 2)

    def _sampling_locations(self, query: Tensor, boxes: Tensor) -> Tensor:
        """Sampling points of each head: (B * M, P, Q, 2) as (x, y) in 0..1."""
        offsets = self._per_point(self.sampling_offsets(query)).unflatten(1, (-1, 2))
        per_point = [1 / points for points in self.num_points for _ in range(points)]
        scale = boxes.new_tensor(per_point)[:, None, None] * self.offset_scale
        boxes = boxes.transpose(1, 2).repeat_interleave(self.num_heads, dim=0)
        centre, size = boxes[:, None].chunk(2, dim=2)  # (B * M, 1, 2, Q)
        locations: Tensor = centre + offsets * scale * size
        return locations.transpose(2, 3)

    def _per_point(self, projected: Tensor) -> Tensor:
        """(B, Q, M * X) to (B * M, X, Q); with the queries last, CPUs add and multiply fastest."""
        columns = projected.transpose(1, 2).contiguous()
        per_head: Tensor = columns.unflatten(1, (self.num_heads, -1))
        return per_head.flatten(0, 1)


class DeformableAttention(DeformableSampling):
    """The same between two projections; with 4 points per level it equals v1."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        self.value_proj = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.output_proj = nn.Linear(config.hidden_dim, config.hidden_dim)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self, query: Tensor, boxes: Tensor, memory: Tensor, sizes_hw: list[tuple[int, int]]
    ) -> Tensor:
        """Sample the memory around each query's box.

        Args:
            query: (B, Q, C).
            boxes: (B, Q, 4) reference boxes, cxcywh in 0..1.
            memory: (B, N, C), the maps flattened one after the other.
            sizes_hw: height and width of each map.

        Returns:
            (B, Q, C).
        """
        maps = split_maps(self.value_proj(memory), sizes_hw, self.num_heads)
        out: Tensor = self.output_proj(self.attend(query, boxes, maps))
        return out


def split_maps(memory: Tensor, sizes_hw: list[tuple[int, int]], num_heads: int) -> list[Tensor]:
    """(B, N, C) memory to one (B * M, D, H, W) map of values per level."""
    levels = memory.transpose(1, 2).split([height * width for height, width in sizes_hw], dim=-1)
    return [
        level.reshape(-1, level.shape[1] // num_heads, *size)
        for level, size in zip(levels, sizes_hw, strict=True)
    ]


def _sample_bilinear(values: Tensor, locations: Tensor) -> Tensor:
    """(BM, D, H, W) values at (BM, P, Q, 2) locations in 0..1: (BM, D, P, Q); zero outside.

    Values are cast to the dtype of the locations, which in bfloat16 would be off by pixels.
    """
    grid = 2 * locations - 1
    values = values.to(grid.dtype)
    return F.grid_sample(values, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _sample_nearest(values: Tensor, locations: Tensor) -> Tensor:
    """The same at the nearest pixel, clamped to the border (RT-DETRv2 section 2.1, "dsp")."""
    height, width = values.shape[-2:]
    limit = locations.new_tensor([width, height])
    pixel = (locations * limit + 0.5).long()
    column = pixel[..., 0].clamp(0, width - 1)
    row = pixel[..., 1].clamp(0, height - 1)
    index = (row * width + column).flatten(1)[:, None].expand(-1, values.shape[1], -1)
    picked: Tensor = values.flatten(2).gather(2, index)
    return picked.reshape(*values.shape[:2], *locations.shape[1:3])
