"""Give a network whose BatchNorms were folded into convolutions statistics to train with.

Files made from an export have neutral norms: mean 0, variance 1. Evaluation is right, but training
normalises by each batch and would change every map at the first step.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn

from rtdetr_cli.core.console import say
from rtdetr_cli.core.distributed import all_reduce_mean
from rtdetr_cli.data.loader import TrainLoader

NUM_BATCHES = 8
"""Batches that the statistics are measured on, fewer if the data set has fewer."""
Sums = dict[nn.BatchNorm2d, Tensor]


def restore_if_folded(network: nn.Module, loader: TrainLoader, device: torch.device) -> None:
    """Measure the statistics of folded norms on unaugmented training images."""
    norms = folded_norms(network)
    if not norms:
        return
    loader.set_epoch(0, strong=False)
    network.to(device)
    images = (batch.images.to(device) for batch in loader)
    restore_norms(network, islice(images, NUM_BATCHES))
    say(
        f"{len(norms)} norms of these weights are folded into convolutions; their statistics are "
        f"measured on up to {NUM_BATCHES} batches"
    )


def folded_norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    """The norms of a trained network that have no statistics: every mean is exactly 0.

    In a network that was never trained every shift is 0 as well.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    neutral = [norm for norm in norms if not _statistics(norm)[0].any()]
    return neutral if any(norm.bias.any() for norm in neutral) else []


@torch.no_grad()
def restore_norms(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Measure the statistics of folded norms, and change their scale and shift accordingly.

    Outputs in eval mode stay as they are. Every process must call it.

    Args:
        network: in whatever mode; in eval mode afterwards.
        batches: images (B, 3, H, W) in 0..1 on the network's device, at least one batch.
    """
    sums, hooks = Sums(), []
    for norm in folded_norms(network):
        hooks.append(norm.register_forward_pre_hook(partial(_add_moments, sums)))
    network.eval()
    count = 0
    for images in batches:
        network(images)
        count += 1
    for hook in hooks:
        hook.remove()
    for norm, total in sums.items():
        mean, square = all_reduce_mean(total / count)
        _set_statistics(norm, mean, (square - mean**2).clamp(min=0))


def _add_moments(sums: Sums, norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
    """Add mean and mean square of each channel, (2, C)."""
    x = inputs[0].double()
    moments = torch.stack((x.mean((0, 2, 3)), x.square().mean((0, 2, 3))))
    sums[norm] = sums.get(norm, torch.zeros_like(moments)) + moments


def _set_statistics(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """Set them so that the norm computes what it did."""
    old_mean, old_variance = _statistics(norm)
    slope = norm.weight / (old_variance + norm.eps).sqrt()
    norm.bias.add_(slope * (mean - old_mean))
    norm.weight.copy_(slope * (variance + norm.eps).sqrt())
    old_mean.copy_(mean)
    old_variance.copy_(variance)


def _statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var
