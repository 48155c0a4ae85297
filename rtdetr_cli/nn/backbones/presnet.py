"""ResNet-vd ("PResNet"), the backbone of RT-DETR-R18, R34, R50 and R101.

Legend: B batch, C channels, H W height and width of the map.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from rtdetr_cli.config.model import PResNetConfig
from rtdetr_cli.nn.layers import ConvNorm


class PResNet(nn.Module):
    """Three-convolution stem, max-pool, four stages of residual blocks."""

    def __init__(self, config: PResNetConfig) -> None:
        super().__init__()
        first, second, third = config.stem
        self.conv1 = nn.Sequential(
            OrderedDict(
                conv1_1=ConvNorm((3, first), kernel=3, stride=2, activation=nn.ReLU),
                conv1_2=ConvNorm((first, second), kernel=3, activation=nn.ReLU),
                conv1_3=ConvNorm((second, third), kernel=3, activation=nn.ReLU),
            )
        )
        block = Bottleneck if config.bottleneck else BasicBlock
        widths = (third, *(width * block.expansion for width in config.widths))
        self.res_layers = nn.ModuleList(
            ResidualStage(block, widths[index : index + 2], config.blocks[index], stride)
            for index, stride in enumerate((1, 2, 2, 2))
        )
        self.out_channels = widths[-3:]

    @property
    def stem_and_stages(self) -> tuple[nn.Module, ...]:
        """The stem, then the four stages, in the order of the forward pass."""
        return (self.conv1, *self.res_layers)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in 0..1 to three maps (B, C_i, H / stride, W / stride), strides 8 16 32."""
        x = F.max_pool2d(self.conv1(images), kernel_size=3, stride=2, padding=1)
        maps = []
        for stage in self.res_layers:
            x = stage(x)
            maps.append(x)
        return maps[-3:]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (R18, R34)."""

    expansion = 1

    def __init__(self, channels: tuple[int, int], stride: int, project: bool) -> None:
        super().__init__()
        width_in, out = channels
        self.short = shortcut(channels, stride) if project else nn.Identity()
        self.branch2a = ConvNorm((width_in, out), kernel=3, stride=stride, activation=nn.ReLU)
        self.branch2b = ConvNorm((out, out), kernel=3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        return F.relu(self.branch2b(self.branch2a(x)) + self.short(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride), 1x1 and a shortcut (R50, R101)."""

    expansion = 4

    def __init__(self, channels: tuple[int, int], stride: int, project: bool) -> None:
        super().__init__()
        width_in, out = channels
        mid = out // self.expansion
        self.branch2a = ConvNorm((width_in, mid), activation=nn.ReLU)
        self.branch2b = ConvNorm((mid, mid), kernel=3, stride=stride, activation=nn.ReLU)
        self.branch2c = ConvNorm((mid, out))
        self.short = shortcut(channels, stride) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        return F.relu(self.branch2c(self.branch2b(self.branch2a(x))) + self.short(x))


class ResidualStage(nn.Module):
    """Residual blocks, the first with the stride and a projected shortcut."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        channels: tuple[int, ...],
        num_blocks: int,
        stride: int,
    ) -> None:
        super().__init__()
        width_in, out = channels
        first = block((width_in, out), stride, project=True)
        rest = (block((out, out), stride=1, project=False) for _ in range(num_blocks - 1))
        self.blocks = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        out: Tensor = self.blocks(x)
        return out


def shortcut(channels: tuple[int, int], stride: int) -> nn.Module:
    """Projection of the vd variant: the pool carries the stride, so that no pixel is skipped."""
    if stride == 1:
        return ConvNorm(channels)
    pool = nn.AvgPool2d(kernel_size=stride, stride=stride, ceil_mode=True)
    return nn.Sequential(OrderedDict(pool=pool, conv=ConvNorm(channels)))
