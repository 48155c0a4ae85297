"""Size of a network: parameters and FLOPs."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(module: nn.Module) -> int:
    """Number of weights and biases, frozen ones too; buffers are not counted."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_flops(module: nn.Module, size_hw: tuple[int, int]) -> int:
    """Floating-point operations for one image in eval mode, 2 per multiply-accumulate.

    Convolutions and matrix products count, attention too; sampling, norms and activations do not.
    Runs on the meta device: shapes only, nothing is computed and `module` is left as it is.

    Args:
        module: called with images (1, 3, H, W).
        size_hw: H and W of the image in pixels.
    """
    shadow = copy.deepcopy(module).to("meta").eval()
    images = torch.empty(1, 3, *size_hw, device="meta")
    # The counter knows the two products of attention only where they are not fused into one.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        shadow(images)
    return int(counter.get_total_flops())
