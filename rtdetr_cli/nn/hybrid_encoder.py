"""Efficient hybrid encoder (RT-DETR section 4.2): AIFI on S5, then CCFF over all three scales.

Legend: B batch, C hidden_dim, H W height and width of a map, N = H * W tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtdetr_cli.config.model import EncoderConfig
from rtdetr_cli.nn.layers import ConvNorm, SelfAttention, constant_dtype, fold_norm


class HybridEncoder(nn.Module):
    """S3, S4, S5 become three maps of equal width: one attention, then convolutions."""

    def __init__(self, config: EncoderConfig, in_channels: tuple[int, ...]) -> None:
        super().__init__()
        width = config.hidden_dim
        self.input_proj = nn.ModuleList(ConvNorm((channels, width)) for channels in in_channels)
        self.encoder = nn.ModuleList([AIFI(config)])
        self.lateral_convs = nn.ModuleList(
            ConvNorm((width, width), activation=nn.SiLU) for _ in range(2)
        )
        self.fpn_blocks = nn.ModuleList(FusionBlock(config) for _ in range(2))
        self.downsample_convs = nn.ModuleList(
            ConvNorm((width, width), kernel=3, stride=2, activation=nn.SiLU) for _ in range(2)
        )
        self.pan_blocks = nn.ModuleList(FusionBlock(config) for _ in range(2))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Equation 1: three maps (B, C_i, H, W) of strides 8, 16, 32 to three (B, C, H, W)."""
        s3, s4, s5 = (project(x) for project, x in zip(self.input_proj, maps, strict=True))
        f5 = self.encoder[0](s5)
        return self._fuse_scales(s3, s4, f5)

    def _fuse_scales(self, s3: Tensor, s4: Tensor, f5: Tensor) -> list[Tensor]:
        """CCFF: top-down, then bottom-up."""
        top5 = self.lateral_convs[0](f5)
        top4 = self.fpn_blocks[0](torch.cat((_upsample(top5), s4), dim=1))
        top4 = self.lateral_convs[1](top4)
        out3 = self.fpn_blocks[1](torch.cat((_upsample(top4), s3), dim=1))
        out4 = self.pan_blocks[0](torch.cat((self.downsample_convs[0](out3), top4), dim=1))
        out5 = self.pan_blocks[1](torch.cat((self.downsample_convs[1](out4), top5), dim=1))
        return [out3, out4, out5]


def _upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class AIFI(nn.Module):
    """Attention-based intra-scale feature interaction, on S5 only."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.position_precision = config.position_precision
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))

    def forward(self, s5: Tensor) -> Tensor:
        """(B, C, H, W) to F5 (B, C, H, W)."""
        tokens = s5.flatten(2).transpose(1, 2)  # (B, N, C)
        position = position_embedding(s5, self.position_precision)
        for layer in self.layers:
            tokens = layer(tokens, position)
        return tokens.transpose(1, 2).reshape(s5.shape)


class EncoderLayer(nn.Module):
    """Post-norm transformer encoder layer with GELU."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.hidden_dim
        self.self_attn = SelfAttention(width, config.num_heads)
        self.linear1 = nn.Linear(width, config.ffn_dim)
        self.linear2 = nn.Linear(config.ffn_dim, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, position: Tensor) -> Tensor:
        """(B, N, C) tokens and (1, N, C) position to (B, N, C)."""
        tokens = self.norm1(tokens + self.self_attn(tokens, position))
        out: Tensor = self.norm2(tokens + self.linear2(F.gelu(self.linear1(tokens))))
        return out


def position_embedding(
    like: Tensor, precision: str = "float64", temperature: float = 10000.0
) -> Tensor:
    """2-D sine and cosine embedding of a map's cells, row by row.

    The official code orders its grid (w, h) against tokens in (h, w), so that a cell gets the
    value of its transposed place; equal on squares, wrong on rectangles. This one is row-major.

    Args:
        like: (B, C, H, W) map that gives size, dtype and device; C a multiple of 4.
        precision: what it is computed in, at most the precision of the map.
        temperature: base of the frequencies.

    Returns:
        (1, H * W, C), channels [sin row, cos row, sin column, cos column].
    """
    channels, height, width = like.shape[1:]
    quarter = channels // 4
    exact = constant_dtype(precision, like)
    steps = torch.arange(quarter, dtype=exact, device=like.device) / quarter
    frequencies = 1.0 / temperature**steps
    rows = torch.arange(height, dtype=exact, device=like.device)[:, None] * frequencies
    columns = torch.arange(width, dtype=exact, device=like.device)[:, None] * frequencies
    row_part = torch.cat((rows.sin(), rows.cos()), dim=1)[:, None].expand(-1, width, -1)
    column_part = torch.cat((columns.sin(), columns.cos()), dim=1)[None].expand(height, -1, -1)
    embedding = torch.cat((row_part, column_part), dim=-1)  # (H, W, C)
    return embedding.reshape(1, height * width, channels).to(like.dtype)


class FusionBlock(nn.Module):
    """Figure 5: two 1x1 convolutions of the same input, RepVGG blocks on one, summed."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        out = config.hidden_dim
        mid = int(out * config.expansion)
        self.conv1 = ConvNorm((2 * out, mid), activation=nn.SiLU)
        self.conv2 = ConvNorm((2 * out, mid), activation=nn.SiLU)
        self.bottlenecks = nn.Sequential(*(RepVGGBlock(mid) for _ in range(config.num_csp_blocks)))
        self.conv3 = ConvNorm((mid, out), activation=nn.SiLU) if mid != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2C, H, W), two maps concatenated, to (B, C, H, W)."""
        out: Tensor = self.conv3(self.bottlenecks(self.conv1(x)) + self.conv2(x))
        return out


class RepVGGBlock(nn.Module):
    """Parallel 3x3 and 1x1 convolutions; one 3x3 at inference (RepVGG, arXiv 2101.03697)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm((width, width), kernel=3)
        self.conv2 = ConvNorm((width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return F.silu(self.conv1(x) + self.conv2(x))

    def fused(self) -> nn.Module:
        """The same function as one convolution and SiLU."""
        merged = fold_norm(self.conv1.conv, self.conv1.norm)
        point = fold_norm(self.conv2.conv, self.conv2.norm)
        assert merged.bias is not None
        assert point.bias is not None
        merged.weight.data += F.pad(point.weight.data, (1, 1, 1, 1))
        merged.bias.data += point.bias.data
        return nn.Sequential(merged, nn.SiLU())
