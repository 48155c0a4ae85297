"""A faster weight gradient of convolutions, for training on CPUs with AVX2.

oneDNN has no fast kernel there for the weight gradient of a dense convolution in channels-last:
256 channels at 80x80, 3x3, batch 2 take 472 ms, but 209 ms in contiguous layout including the
copies. Everything else is faster in channels-last, so only this gradient changes its layout.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SMALLEST_IMAGE = 400_000
"""Channels times pixels above which the copies pay: 256 at 40x40, not 128 (batches 2 and 8)."""


def speed_up_convolutions(network: nn.Module) -> None:
    """Replace dense convolutions of 3x3 and larger by `_Convolution`, which shares their weights.

    Args:
        network: on a CPU, in channels-last and float32. Not changed unless AVX2 is the highest
            instruction set of the CPU.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX2":
        return
    for name, module in list(network.named_modules()):
        if type(module) is nn.Conv2d and _gains(module):
            parent, _, attribute = name.rpartition(".")  # set_submodule needs PyTorch 2.5
            network.get_submodule(parent).register_module(attribute, _Convolution(module))


def _gains(module: nn.Conv2d) -> bool:
    """Dense kernels over many channels; where a stem narrows, the copies do not pay."""
    is_dense = module.groups == 1 and module.kernel_size[0] > 1 and module.bias is None
    is_wide = min(module.in_channels, module.out_channels) >= 32
    is_narrowing = module.stride != (1, 1) and module.out_channels < module.in_channels
    return is_dense and is_wide and not is_narrowing


class _Convolution(nn.Conv2d):
    """nn.Conv2d whose weight gradient is computed by `_ConvolutionFunction`."""

    def __init__(self, module: nn.Conv2d) -> None:
        """Take over the parameters of a convolution without bias."""
        height, width = module.kernel_size
        super().__init__(
            module.in_channels, module.out_channels, (height, width), bias=False, device="meta"
        )
        self.stride, self.padding, self.weight = module.stride, module.padding, module.weight
        self.train(module.training)

    def forward(self, images: Tensor) -> Tensor:
        """As in nn.Conv2d."""
        is_trained = torch.is_grad_enabled() and self.weight.requires_grad
        if not is_trained or images[0].numel() < _SMALLEST_IMAGE:
            return super().forward(images)
        output: Tensor = _ConvolutionFunction.apply(images, self.weight, self.stride, self.padding)
        return output


class _ConvolutionFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  attributes are set on it
        images: Tensor,
        weight: Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(images, weight, None, stride, padding)

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        *gradients: Tensor,
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        images, weight = ctx.saved_tensors
        (gradient,) = gradients

        def backward(
            parts: tuple[Tensor, Tensor, Tensor], wanted: list[bool]
        ) -> tuple[Tensor, ...]:
            outcome: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
                *parts, None, ctx.stride, ctx.padding, (1, 1), False, (0, 0), 1, wanted
            )
            return outcome

        of_images = of_weight = None
        if ctx.needs_input_grad[0]:
            of_images = backward((gradient, images, weight), [True, False, False])[0]
        if ctx.needs_input_grad[1]:
            rows = (gradient.contiguous(), images.contiguous(), weight.contiguous())
            of_weight = backward(rows, [False, True, False])[1]
        return of_images, of_weight, None, None
