"""HGNetv2 (PaddleClas PP-HGNetV2), the backbone of RT-DETR-L, X and H, D-FINE and DEIMv2.

Legend: B batch, C channels, H W height and width of the map.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtdetr_cli.config.model import HGNetv2Config, HGStage
from rtdetr_cli.nn.layers import BatchNorm, fold_norm


class HGNetv2(nn.Module):
    """Stem of stride 4 and three or four stages; the last `num_maps` give the maps."""

    def __init__(self, config: HGNetv2Config) -> None:
        super().__init__()
        stem_mid, stem_out = config.stem
        affine = config.learnable_affine
        self.stem = Stem(stem_mid, stem_out, affine)
        widths = (stem_out, *(stage.out for stage in config.stages))
        self.stages = nn.ModuleList(
            Stage(width_in, stage, downsample=index > 0, affine=affine)
            for index, (width_in, stage) in enumerate(zip(widths, config.stages, strict=False))
        )
        self.num_maps = config.num_maps
        self.out_channels = widths[-config.num_maps :]

    @property
    def stem_and_stages(self) -> tuple[nn.Module, ...]:
        """The stem, then the stages, in the order of the forward pass."""
        return (self.stem, *self.stages)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in 0..1 to `num_maps` maps (B, C_i, H / stride, W / stride), finest first.

        The stages have strides 4, 8, 16 and 32.
        """
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[-self.num_maps :]


class ConvBN(nn.Module):
    """Convolution, BatchNorm, ReLU, learnable affine; without `activate` the norm is the last."""

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: int,
        stride: int = 1,
        depthwise: bool = False,
        activate: bool = True,
        affine: bool = False,
    ) -> None:
        super().__init__()
        groups = channels[1] if depthwise else 1
        self.conv: nn.Module = nn.Conv2d(
            *channels, kernel, stride, padding=(kernel - 1) // 2, groups=groups, bias=False
        )
        self.bn = BatchNorm(channels[1])
        self.act = nn.ReLU() if activate else nn.Identity()
        self.lab = LearnableAffine() if activate and affine else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        out: Tensor = self.lab(self.act(self.bn(self.conv(x))))
        return out

    def fused(self) -> nn.Module:
        """The same function with norm and affine block folded into the convolution."""
        *pad, conv = [self.conv] if isinstance(self.conv, nn.Conv2d) else self.conv.children()
        assert isinstance(conv, nn.Conv2d)
        folded = fold_norm(conv, self.bn)
        return nn.Sequential(*pad, folded, self._folded_activation(folded))

    def _folded_activation(self, folded: nn.Conv2d) -> nn.Module:
        """What follows the convolution, which takes over scale and shift of an affine block.

        scale * max(x, 0) + bias = max(scale * x + bias, bias), the minimum for a negative scale.
        """
        if not isinstance(self.lab, LearnableAffine):
            return self.act
        assert folded.bias is not None
        folded.weight.data *= self.lab.scale.data
        folded.bias.data = self.lab(folded.bias.data)
        if folded.weight.is_meta:  # sizes are counted there
            return Bound(0.0, None)
        scale, bias = self.lab.scale.item(), self.lab.bias.item()
        return Bound(bias, None) if scale > 0 else Bound(None, bias)


class LearnableAffine(nn.Module):
    """One learned scale and one shift for the whole map."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return self.scale * x + self.bias


class Bound(nn.Module):
    """Values within a lower or an upper bound."""

    def __init__(self, lower: float | None, upper: float | None) -> None:
        super().__init__()
        self.lower, self.upper = lower, upper

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return x.clamp(self.lower, self.upper)


class PaddedConvBN(ConvBN):
    """2x2 convolution, zero padded on the right and the bottom only."""

    def __init__(self, channels: tuple[int, int], affine: bool = False) -> None:
        super().__init__(channels, kernel=2, affine=affine)
        # In the official state dict the pad comes first: `conv.1.weight` is the convolution.
        self.conv = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), self.conv)


class Stem(nn.Module):
    """Two parallel paths after a 3x3 convolution: 2x2 convolutions, 2x2 max-pool; stride 4."""

    def __init__(self, mid: int, out: int, affine: bool) -> None:
        super().__init__()
        self.stem1 = ConvBN((3, mid), kernel=3, stride=2, affine=affine)
        self.stem2a = PaddedConvBN((mid, mid // 2), affine)
        self.stem2b = PaddedConvBN((mid // 2, mid), affine)
        self.stem3 = ConvBN((2 * mid, mid), kernel=3, stride=2, affine=affine)
        self.stem4 = ConvBN((mid, out), kernel=1, affine=affine)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, out, H / 4, W / 4)."""
        x = self.stem1(images)
        pooled = F.max_pool2d(F.pad(x, (0, 1, 0, 1)), kernel_size=2, stride=1)
        convolved = self.stem2b(self.stem2a(x))
        out: Tensor = self.stem4(self.stem3(torch.cat((pooled, convolved), dim=1)))
        return out


class Stage(nn.Module):
    """An optional depthwise down-sampling, then HG blocks."""

    def __init__(self, width_in: int, config: HGStage, downsample: bool, affine: bool) -> None:
        super().__init__()
        self.downsample = (
            ConvBN((width_in, width_in), kernel=3, stride=2, depthwise=True, activate=False)
            if downsample
            else nn.Identity()
        )
        self.blocks = nn.Sequential(
            *(
                HGBlock(config.out if index else width_in, config, index > 0, affine)
                for index in range(config.blocks)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H / 2, W / 2), or the same size in the first stage."""
        out: Tensor = self.blocks(self.downsample(x))
        return out


class LightConv(nn.Module):
    """1x1 convolution without activation, then a depthwise one."""

    def __init__(self, channels: tuple[int, int], kernel: int, affine: bool) -> None:
        super().__init__()
        self.conv1 = ConvBN(channels, kernel=1, activate=False)
        self.conv2 = ConvBN((channels[1], channels[1]), kernel, depthwise=True, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H, W)."""
        out: Tensor = self.conv2(self.conv1(x))
        return out


class HGBlock(nn.Module):
    """A chain of convolutions whose outputs are all aggregated: squeeze, then excitation."""

    def __init__(self, width_in: int, config: HGStage, residual: bool, affine: bool) -> None:
        super().__init__()
        self.residual = residual
        conv = LightConv if config.light else ConvBN
        widths = (width_in, *[config.mid] * config.layers)
        self.layers = nn.ModuleList(
            conv(pair, config.kernel, affine=affine) for pair in pairwise(widths)
        )
        squeezed, out = config.out // 2, config.out
        self.aggregation_squeeze_conv = ConvBN((sum(widths), squeezed), kernel=1, affine=affine)
        self.aggregation_excitation_conv = ConvBN((squeezed, out), kernel=1, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H, W)."""
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        squeezed = self.aggregation_squeeze_conv(torch.cat(outputs, dim=1))
        out: Tensor = self.aggregation_excitation_conv(squeezed)
        return out + x if self.residual else out
