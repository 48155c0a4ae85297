"""16-bit inference: the fast type of a device, and the layers that stay float32.

engine/training/precision.py is the counterpart for training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtdetr_cli.core.cpu import cpu_features
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

DTYPE_NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", None: "float32"}


class Exact(nn.Module):
    """A module that computes in float32 even under autocast."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Same shapes as the wrapped module."""
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = self.module(x.float())
        return out


def half_dtype(device: torch.device) -> torch.dtype:
    """The type for `half=true`: float16 on CUDA, bfloat16 on a CPU.

    Raises:
        BackendError: the device has no 16-bit instructions.
    """
    if device.type == "cuda":
        return torch.float16
    if device.type != "cpu":
        raise BackendError(f"half=true supports CUDA and CPUs, not device={device}")
    if not cpu_features().has_bf16:
        raise BackendError(
            "half=true: this CPU has no instructions for bfloat16 (avx512_bf16, amx_bf16), so it "
            "would be slower than float32; leave half out"
        )
    return torch.bfloat16


def keep_exact(network: RTDETRNetwork) -> None:
    """Keep layers in float32 that lose accuracy in 16 bits; nn itself protects the box refinement.

    In the first convolution, a bright even background is rounded the same way everywhere: in
    bfloat16 it moves the boxes of a trained n by 2.4 px at p99, in float32 by 0.4 px. The score
    heads recover the last 0.002 of AP (docs/predict.md). Together they are 0.2 % of the arithmetic.
    """
    decoder, backbone = network.decoder, network.backbone
    first = next(name for name, part in backbone.named_modules() if isinstance(part, nn.Conv2d))
    backbone.set_submodule(first, Exact(backbone.get_submodule(first)))
    decoder.set_submodule("enc_score_head", Exact(decoder.enc_score_head))
    decoder.dec_score_head = nn.ModuleList(map(Exact, decoder.dec_score_head))
