"""Blocks of the encoders that fuse two maps, and the down-sampling of D-FINE.

`CSPLayer` is RT-DETR's fusion block (figure 5). `ELANBlock` is RepNCSPELAN4 of D-FINE and DEIMv2,
an aggregation of two CSP layers as in YOLOv9 (arXiv 2402.13616).

Legend: B batch, C channels, H W height and width of a map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtdetr_cli.nn.layers import ConvNorm, fold_norm


class CSPLayer(nn.Module):
    """Figure 5: two 1x1 convolutions of the same input, RepVGG blocks on one, summed."""

    def __init__(
        self, channels: tuple[int, int], num_blocks: int, inner: int | None = None
    ) -> None:
        super().__init__()
        width_in, out = channels
        inner = inner or out
        self.conv1 = ConvNorm((width_in, inner), activation=nn.SiLU)
        self.conv2 = ConvNorm((width_in, inner), activation=nn.SiLU)
        self.bottlenecks = nn.Sequential(*(RepVGGBlock(inner) for _ in range(num_blocks)))
        self.conv3 = ConvNorm((inner, out), activation=nn.SiLU) if inner != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H, W)."""
        out: Tensor = self.conv3(self.bottlenecks(self.conv1(x)) + self.conv2(x))
        return out


class SplitCSPLayer(nn.Module):
    """The same with both 1x1 convolutions as one, whose second half enters the RepVGG blocks."""

    def __init__(self, channels: tuple[int, int], num_blocks: int) -> None:
        super().__init__()
        width_in, out = channels
        self.conv1 = ConvNorm((width_in, 2 * out), activation=nn.SiLU)
        self.bottlenecks = nn.Sequential(*(RepVGGBlock(out) for _ in range(num_blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H, W)."""
        identity, entering = self.conv1(x).chunk(2, dim=1)
        out: Tensor = self.bottlenecks(entering) + identity
        return out


class ELANBlock(nn.Module):
    """RepNCSPELAN4: a split, two CSP layers in a row, and all four parts aggregated."""

    def __init__(
        self,
        channels: tuple[int, int],
        inner: int,
        num_blocks: int,
        csp: type[CSPLayer] | type[SplitCSPLayer] = CSPLayer,
    ) -> None:
        super().__init__()
        width_in, out = channels
        self.cv1 = ConvNorm((width_in, 2 * out), activation=nn.SiLU)
        self.cv2, self.cv3 = (
            nn.Sequential(
                csp((entering, inner), num_blocks),
                ConvNorm((inner, inner), kernel=3, activation=nn.SiLU),
            )
            for entering in (out, inner)
        )
        self.cv4 = ConvNorm((2 * out + 2 * inner, out), activation=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H, W)."""
        both = self.cv1(x)
        third = self.cv2(both[:, both.shape[1] // 2 :])
        fourth = self.cv3(third)
        out: Tensor = self.cv4(torch.cat((both, third, fourth), dim=1))
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


class SeparableDownsample(nn.Module):
    """SCDown: a 1x1 convolution, then a depthwise one of stride 2 (YOLOv10, arXiv 2405.14458)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cv1 = ConvNorm((width, width))
        self.cv2 = ConvNorm((width, width), kernel=3, stride=2, depthwise=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H / 2, W / 2)."""
        out: Tensor = self.cv2(self.cv1(x))
        return out
