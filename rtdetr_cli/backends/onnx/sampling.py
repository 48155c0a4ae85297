"""Deformable sampling of the deployed decoder (decoder.py), with GridSample or with gathers.

There are two forms because several releases of TensorRT miscompute GridSample in such decoders.
Legend: B batch, Q queries, C hidden_dim, M heads, D = C / M, P points of all levels, H W height and
width of a map, N tokens of all maps, K corners.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtdetr_cli.nn.deformable_attention import DeformableSampling
from rtdetr_cli.nn.rtdetr import RTDETRNetwork


def used_sampler(network: RTDETRNetwork, name: str) -> str:
    """The sampler in use: networks with discrete sampling always gather."""
    return "gather" if network.config.decoder.sampling == "discrete" else name


def make_sampler(name: str, cross: DeformableSampling) -> nn.Module:
    """The module for `grid_sample` or `gather`; discrete sampling always gathers."""
    return GatherSampler(cross) if name == "gather" or cross.discrete else GridSampler(cross)


class GridSampler(nn.Module):
    """Bilinear sampling with one GridSample per map."""

    def __init__(self, cross: DeformableSampling) -> None:
        super().__init__()
        self.num_heads, self.num_points = cross.num_heads, cross.num_points

    def forward(self, maps: list[Tensor], grid: Tensor, weights: Tensor) -> Tensor:
        """Weighted sums of sampled values.

        Args:
            maps: one (B, C, H, W) per level.
            grid: (B, M, Q, P, 2) locations (x, y); -1 and 1 are the borders of the image.
            weights: (B, M, Q, P).

        Returns:
            (B * Q, C).
        """
        per_level = grid.flatten(0, 1).split(list(self.num_points), dim=2)
        sampled = torch.cat(
            [self._sample(values, points) for values, points in zip(maps, per_level, strict=True)],
            dim=-1,
        )  # (B * M, D, Q, P)
        queries, points = grid.shape[2:4]
        mixed = (sampled * weights.reshape(-1, 1, queries, points)).sum(dim=-1)  # (B * M, D, Q)
        width = maps[0].shape[1]
        return mixed.reshape(-1, width, queries).transpose(1, 2).reshape(-1, width)

    def _sample(self, values: Tensor, points: Tensor) -> Tensor:
        """(B, C, H, W) at (B * M, Q, p, 2): (B * M, D, Q, p); zero outside."""
        values = values.unflatten(1, (self.num_heads, -1)).flatten(0, 1)
        return F.grid_sample(values, points, align_corners=False)


class GatherSampler(nn.Module):
    """Sampling by index: the four pixels around each location, or the nearest one.

    All maps are gathered at once, with one gather per layer.
    """

    def __init__(self, cross: DeformableSampling) -> None:
        super().__init__()
        self.num_heads, self.num_points = cross.num_heads, cross.num_points
        self.discrete = cross.discrete

    def forward(self, maps: list[Tensor], grid: Tensor, weights: Tensor) -> Tensor:
        """Same as GridSampler.forward."""
        sizes, starts = self._geometry(maps)
        pixels = (grid + 1) * (sizes / 2) - 0.5  # (B, M, Q, P, 2), 0 is the centre of the first
        if self.discrete:
            corners = (pixels + 1).floor()[..., None, :]  # as the official code rounds
            share = None
        else:
            step = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]]).to(pixels)  # (K, 2)
            corners = pixels.floor()[..., None, :] + step  # (B, M, Q, P, K, 2)
            share = 1 - (pixels[..., None, :] - corners).abs()
        last = sizes[:, None] - 1
        inside = corners.clamp(torch.zeros_like(last), last)
        if share is not None:
            share = share.where(inside == corners, 0.0).prod(dim=-1)  # (B, M, Q, P, K)
        return self._mix(maps, self._index(inside, sizes, starts), weights, share)

    def _geometry(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(P, 2) width and height of the map of each point, and (P,) its first row."""
        sizes, starts, start = [], [], 0
        for values, points in zip(maps, self.num_points, strict=True):
            height, width = values.shape[2:]
            sides = [values.new_full((points, 1), side) for side in (width, height)]
            sizes.append(torch.cat(sides, dim=1))
            starts.append(values.new_full((points,), start))
            start = start + height * width
        return torch.cat(sizes), torch.cat(starts)

    def _index(self, corners: Tensor, sizes: Tensor, starts: Tensor) -> Tensor:
        """Row indices into the (N * M, D) table of an image: (B, M, Q, P, K)."""
        heads = self.num_heads
        strides = torch.stack((torch.ones_like(starts), sizes[:, 0]), dim=-1) * heads  # (P, 2)
        head = torch.arange(heads).to(starts)[:, None, None, None]
        first = head + (starts * heads)[:, None]  # (M, 1, P, 1)
        return ((corners * strides[:, None]).sum(dim=-1) + first).long()

    def _mix(
        self, maps: list[Tensor], index: Tensor, weights: Tensor, share: Tensor | None
    ) -> Tensor:
        """Values at the index, weighted and summed: (B * Q, C)."""
        width, heads = maps[0].shape[1], self.num_heads
        depth = width // heads
        tokens = torch.cat([x.flatten(2) for x in maps], dim=2).transpose(1, 2)  # (B, N, C)
        table = tokens.reshape(tokens.shape[0], -1, depth)  # (B, N * M, D)
        rows: Tensor = take_rows(table, index.flatten(1))
        if share is not None:
            weights = weights[..., None] * share
        queries, points = index.shape[2], index.shape[3] * index.shape[4]
        weights = weights.reshape(-1, heads, queries, 1, points)
        rows = rows.reshape(-1, heads, queries, points, depth)
        mixed = (weights @ rows).reshape(-1, heads, queries, depth)
        return mixed.transpose(1, 2).reshape(-1, width)


@torch.library.custom_op("rtdetr::take_rows", mutates_args=())
def take_rows(table: Tensor, index: Tensor) -> Tensor:
    """Select rows per image: (B, N, C) at (B, Q) to (B, Q, C).

    A custom operator, because PyTorch's gather needs an index as wide as the rows, which would end
    up in the file; graph.py exports this operator as GatherND.
    """
    return table.gather(1, index[..., None].expand(-1, -1, table.shape[-1]))


@take_rows.register_fake
def _(table: Tensor, index: Tensor) -> Tensor:
    return table.new_empty((*index.shape, table.shape[-1]))
