"""Efficient hybrid encoder (RT-DETR section 4.2): AIFI on S5, then CCFF over all scales.

D-FINE and DEIMv2 have other fusion blocks (fusion_blocks.py), no activation in the lateral
convolutions, and down-sampling in two cheap steps.

Legend: B batch, C hidden_dim, H W height and width of a map, N = H * W tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtdetr_cli.config.model import EncoderConfig
from rtdetr_cli.nn.fusion_blocks import CSPLayer, ELANBlock, SeparableDownsample, SplitCSPLayer
from rtdetr_cli.nn.layers import ConvNorm, SelfAttention, constant_dtype


class HybridEncoder(nn.Module):
    """S3, S4, S5 become as many maps of equal width: one attention, then convolutions.

    D-FINE-N and DEIMv2-N leave S3 out.
    """

    def __init__(self, config: EncoderConfig, in_channels: tuple[int, ...]) -> None:
        super().__init__()
        self.adds = config.fusion == "elan_sum"
        width, num_steps = config.hidden_dim, len(in_channels) - 1
        self.input_proj = nn.ModuleList(
            nn.Identity() if self.adds and channels == width else ConvNorm((channels, width))
            for channels in in_channels
        )
        self.encoder = nn.ModuleList([AIFI(config)])
        self.lateral_convs = nn.ModuleList(_lateral(config) for _ in range(num_steps))
        self.fpn_blocks = nn.ModuleList(_fusion_block(config) for _ in range(num_steps))
        self.downsample_convs = nn.ModuleList(_downsample(config) for _ in range(num_steps))
        self.pan_blocks = nn.ModuleList(_fusion_block(config) for _ in range(num_steps))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Equation 1: two or three maps (B, C_i, H, W), finest first, to as many (B, C, H, W)."""
        *finer, s5 = (project(x) for project, x in zip(self.input_proj, maps, strict=True))
        f5 = self.encoder[0](s5)
        return self._fuse_scales(finer, f5)

    def _fuse_scales(self, finer: list[Tensor], f5: Tensor) -> list[Tensor]:
        """CCFF: top-down, then bottom-up."""
        x, tops = f5, []
        for lateral, block, fine in zip(
            self.lateral_convs, self.fpn_blocks, reversed(finer), strict=True
        ):
            tops.append(lateral(x))
            x = block(self._join(_upsample(tops[-1]), fine))
        outputs = [x]
        for downsample, block, top in zip(
            self.downsample_convs, self.pan_blocks, reversed(tops), strict=True
        ):
            outputs.append(block(self._join(downsample(outputs[-1]), top)))
        return outputs

    def _join(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y if self.adds else torch.cat((x, y), dim=1)


def _upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _lateral(config: EncoderConfig) -> ConvNorm:
    activation = nn.SiLU if config.fusion == "csp" else None
    return ConvNorm((config.hidden_dim, config.hidden_dim), activation=activation)


def _downsample(config: EncoderConfig) -> nn.Module:
    width = config.hidden_dim
    if config.fusion == "csp":
        return ConvNorm((width, width), kernel=3, stride=2, activation=nn.SiLU)
    return nn.Sequential(SeparableDownsample(width))


def _fusion_block(config: EncoderConfig) -> CSPLayer | ELANBlock:
    width, inner, num_blocks = config.hidden_dim, config.fusion_width, config.num_csp_blocks
    if config.fusion == "csp":
        return CSPLayer((2 * width, width), num_blocks, inner)
    if config.fusion == "elan":
        return ELANBlock((2 * width, width), inner, num_blocks)
    return ELANBlock((width, width), inner, num_blocks, csp=SplitCSPLayer)


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
