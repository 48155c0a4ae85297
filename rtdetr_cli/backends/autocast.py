"""Sixteen bits at inference: which type a device computes fast, and what stays float32 beside it.

engine/training/precision.py decides for training, by the same look at the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtdetr_cli.core.cpu import cpu_features
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

DTYPE_NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", None: "float32"}


class Exact(nn.Module):
    """A module that computes in float32, also under autocast."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, as the module itself."""
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = self.module(x.float())
        return out


def half_dtype(device: torch.device) -> torch.dtype:
    """What `half=true` computes in: float16 on CUDA, bfloat16 on a CPU.

    Raises:
        BackendError: the device has no instructions for it.
    """
    if device.type == "cuda":
        return torch.float16
    if device.type != "cpu":
        raise BackendError(f"half=true is for CUDA and for CPUs, not for device={device}")
    if not cpu_features().has_bf16:
        raise BackendError(
            "half=true: this CPU has no instructions for bfloat16 (avx512_bf16, amx_bf16), and "
            "without them it would be slower; leave half out"
        )
    return torch.bfloat16


def keep_exact(network: RTDETRNetwork) -> None:
    """Keep float32 under autocast where 16 bits cost accuracy; nn keeps the box chain by itself.

    The first convolution: a bright and even background is rounded the same way everywhere. With
    it in bfloat16 boxes of a trained n move by 2.4 px at p99, without 0.4 px; the score heads
    bring the last 0.002 of AP (docs/predict.md). Together they are 0.2 % of the arithmetic.
    """
    decoder, backbone = network.decoder, network.backbone
    first = next(name for name, part in backbone.named_modules() if isinstance(part, nn.Conv2d))
    backbone.set_submodule(first, Exact(backbone.get_submodule(first)))
    decoder.set_submodule("enc_score_head", Exact(decoder.enc_score_head))
    decoder.dec_score_head = nn.ModuleList(map(Exact, decoder.dec_score_head))
