"""Exponential moving average of the weights, which are validated and exported."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from rtdetr_cli.nn.rtdetr import RTDETRNetwork


class EMA:
    """The average of the network's weights and BatchNorm statistics over the steps.

    The decay grows as `decay * (1 - exp(-steps / ramp))`, so that the initial weights are forgotten
    (official RT-DETR, `ModelEMA`).

    Attributes:
        network: the averaged network, in eval mode.
        steps: number of updates.
    """

    def __init__(self, network: RTDETRNetwork, decay: float, ramp: int) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.steps = 0
        self.set_pace(decay, ramp)
        self._slow = self._tensors(self.network)
        self._fast = self._tensors(network)

    def set_pace(self, decay: float, ramp: int) -> None:
        """Set the final decay, and the steps in which it grows to 63 % of it."""
        self._decay, self._ramp = decay, ramp

    @staticmethod
    def _tensors(network: RTDETRNetwork) -> list[Tensor]:
        return [t.detach() for t in (*network.parameters(), *network.buffers())]

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the network's weights, after each step."""
        self.steps += 1
        decay = self._decay * (1 - math.exp(-self.steps / self._ramp))
        # private, but one fused kernel over all tensors; torch.optim.swa_utils calls it as well
        torch._foreach_lerp_(self._slow, self._fast, 1 - decay)
