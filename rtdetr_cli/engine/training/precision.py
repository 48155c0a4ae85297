"""Numeric precision of the forward pass in training: autocast and loss scaling.

Only the network runs under autocast; its boxes, matching and loss stay in float32 (nn, loss).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.amp import GradScaler

from rtdetr_cli.backends.autocast import DTYPE_NAMES
from rtdetr_cli.core.cpu import cpu_features
from rtdetr_cli.core.errors import BackendError

_SMALLEST_SCALE = 1.0


@dataclass
class Precision:
    """The number type of the network's forward pass.

    Attributes:
        device_type: `cuda`, `cpu` or `mps`.
        dtype: of autocast; None for float32 throughout.
        scaler: keeps float16 gradients from underflowing; disabled for other types.
    """

    device_type: str
    dtype: torch.dtype | None
    scaler: GradScaler

    def autocast(self) -> torch.autocast:
        """The context manager of the network's forward pass."""
        return torch.autocast(self.device_type, self.dtype, enabled=self.dtype is not None)

    def can_skip(self, loss: torch.Tensor) -> bool:
        """Whether the gradient overflowed because of the float16 scale, which can still shrink."""
        return (
            self.scaler.is_enabled()
            and bool(torch.isfinite(loss))
            and self.scaler.get_scale() > _SMALLEST_SCALE
        )

    def restore(self, scaler: dict[str, Any]) -> None:
        """Load the saved state of the scaler; it is empty if scaling was disabled."""
        if scaler:
            self.scaler.load_state_dict(scaler)

    def describe(self) -> str:
        """The type as printed with the recipe."""
        is_slow = self.device_type == "cpu" and self.dtype and not cpu_features().has_bf16
        return DTYPE_NAMES[self.dtype] + (" without instructions for it (slow)" if is_slow else "")


def choose_precision(amp: str, device: torch.device) -> Precision:
    """Choose the type that `amp` means on a device.

    Args:
        amp: `bf16`, `fp16` or `off`; `auto` chooses a type that is fast on the device: bf16, else
            fp16, on CUDA; bf16 on CPUs with instructions for it; else float32.
        device: of the training.

    Raises:
        BackendError: the device does not support the type.
    """
    kind = device.type
    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}
    dtype = _fast_dtype(kind) if amp == "auto" else dtypes[amp]
    if dtype is torch.float16 and kind != "cuda":
        raise BackendError(f"amp=fp16 needs a CUDA device; on {kind} give amp=bf16 or amp=off")
    if dtype is not None and kind == "mps":
        raise BackendError(f"amp={amp} is not supported on mps; give amp=off")
    if dtype is torch.bfloat16 and kind == "cuda" and not torch.cuda.is_bf16_supported(False):
        raise BackendError("amp=bf16 is not supported on this GPU; give amp=fp16 or amp=off")
    return Precision(kind, dtype, GradScaler(kind, enabled=dtype is torch.float16))


def _fast_dtype(device_type: str) -> torch.dtype | None:
    if device_type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
    return torch.bfloat16 if device_type == "cpu" and cpu_features().has_bf16 else None
