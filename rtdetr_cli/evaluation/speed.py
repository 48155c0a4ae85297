"""How large and how fast a network is: parameters, FLOPs, latency percentiles."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Latency:
    """Percentiles of the time that one call takes, in milliseconds."""

    p50_ms: float
    p90_ms: float
    p99_ms: float


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


def measure_latency(run: Callable[[], object], warmup: int = 3, runs: int = 20) -> Latency:
    """Time `run`, which must return only when its work is done (synchronise a GPU inside it).

    Args:
        run: one call of what is measured.
        warmup: calls before the clock starts.
        runs: calls that count, 1 or more.
    """
    for _ in range(warmup):
        run()
    times_ms = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times_ms.append(1000 * (time.perf_counter() - start))
    return Latency(*np.percentile(times_ms, [50, 90, 99]).tolist())
