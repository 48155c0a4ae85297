"""Encoder of DEIMv2 Atto, Femto and Pico (arXiv 2509.20787): one map in, two out, no attention.

Legend: B batch, C hidden_dim, H W height and width of the map.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from rtdetr_cli.config.model import LiteEncoderConfig
from rtdetr_cli.nn.fusion_blocks import ELANBlock, SplitCSPLayer
from rtdetr_cli.nn.layers import BatchNorm, ConvNorm, fold_norm


class LiteEncoder(nn.Module):
    """S4 becomes two maps of equal width and strides 16 and 32."""

    def __init__(self, config: LiteEncoderConfig, in_channels: tuple[int, ...]) -> None:
        super().__init__()
        width = config.hidden_dim
        self.input_proj = nn.ModuleList(ConvNorm((channels, width)) for channels in in_channels)
        self.down_sample1 = PooledConvNorm(width)
        self.down_sample2 = PooledConvNorm(width)
        self.bi_fusion = GlobalContext(width)
        self.fpn_block, self.pan_block = (
            ELANBlock((width, width), config.fusion_width, config.num_csp_blocks, csp=SplitCSPLayer)
            for _ in range(2)
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """One map (B, C_in, H, W) to (B, C, H, W) and (B, C, H / 2, W / 2)."""
        (s4,) = maps
        p4 = self.input_proj[0](s4)
        p5 = self.bi_fusion(self.down_sample1(p4))
        out4 = self.fpn_block(p4 + F.interpolate(p5, scale_factor=2.0, mode="nearest"))
        out5 = self.pan_block(p5 + self.down_sample2(out4))
        return [out4, out5]


class PooledConvNorm(nn.Sequential):
    """Average pool of stride 2, 1x1 convolution, BatchNorm, SiLU."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.AvgPool2d(kernel_size=3, stride=2, padding=1),
            nn.Conv2d(width, width, kernel_size=1, bias=False),
            BatchNorm(width),
            nn.SiLU(),
        )

    def fused(self) -> nn.Module:
        """The same function with the norm folded into the convolution."""
        pool, conv, norm, activation = self
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, BatchNorm)
        return nn.Sequential(pool, fold_norm(conv, norm), activation)


class GlobalContext(nn.Module):
    """Each cell plus the mean of all cells, then a 1x1 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cv = ConvNorm((width, width), activation=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        out: Tensor = self.cv(x + x.mean(dim=(2, 3), keepdim=True))
        return out
