"""Building blocks shared by backbone, encoder and decoder.

Legend: B batch, C channels or hidden_dim, N tokens, M heads, H W height and width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def constant_dtype(precision: str, like: Tensor) -> torch.dtype:
    """Dtype of a derived constant: float64 if requested and `like` is float64, else float32."""
    is_double = precision == "float64" and like.dtype == torch.float64
    return torch.float64 if is_double else torch.float32


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm2d without the step counter, which official frozen norms do not store."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        del self._buffers["num_batches_tracked"]
        self.num_batches_tracked = None

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        *rest: Any,  # noqa: ANN401  torch's own signature
    ) -> None:
        # Version 2 keeps torch from inserting a counter into state dicts that carry none.
        super()._load_from_state_dict(state_dict, prefix, {**local_metadata, "version": 2}, *rest)


class ConvNorm(nn.Module):
    """Convolution without bias, BatchNorm, activation; padding keeps the size at stride 1."""

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: int = 1,
        stride: int = 1,
        activation: Callable[[], nn.Module] | None = None,
        depthwise: bool = False,
    ) -> None:
        super().__init__()
        groups = channels[1] if depthwise else 1
        self.conv = nn.Conv2d(
            *channels, kernel, stride, padding=(kernel - 1) // 2, groups=groups, bias=False
        )
        self.norm = BatchNorm(channels[1])
        self.act = activation() if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        out: Tensor = self.act(self.norm(self.conv(x)))
        return out

    def fused(self) -> nn.Module:
        """The same function with the norm folded into the convolution."""
        return nn.Sequential(fold_norm(self.conv, self.norm), self.act)


def fold_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution with bias that equals `norm(conv(x))` in eval mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = nn.utils.fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    folded = copy.deepcopy(conv, {id(conv.weight): weight})  # copies all but the weight
    folded.bias = bias
    return folded


Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Activation] = {"relu": F.relu, "silu": F.silu}
"""By the name in an architecture file."""


class MLP(nn.Module):
    """Linear layers with an activation between them."""

    def __init__(self, widths: tuple[int, ...], activation: Activation = F.relu) -> None:
        super().__init__()
        self.activation = activation
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(..., widths[0]) to (..., widths[-1])."""
        *hidden, last = self.layers
        for layer in hidden:
            x = self.activation(layer(x))
        out: Tensor = last(x)
        return out


class ExactMLP(MLP):
    """An MLP in the precision of its weights, also under autocast; for box heads.

    A step of 1 in logit space, rounded to bfloat16, is off by up to 0.3 px at 640.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., widths[0]) to (..., widths[-1])."""
        with _without_autocast(x.device.type):
            return super().forward(x.to(next(self.parameters()).dtype))


def _without_autocast(device_type: str) -> AbstractContextManager[object]:
    # The meta device, on which FLOPs are counted, has no autocast.
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


class RMSNorm(nn.Module):
    """Root mean square norm (arXiv 1910.07467, equation 4), in float32 at least."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same shape and dtype."""
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        exact = exact * torch.rsqrt(exact.square().mean(dim=-1, keepdim=True) + self.eps)
        return (exact * self.scale).to(x.dtype)


class SwiGLU(nn.Module):
    """Gated feed-forward network (arXiv 2002.05202, equation 6) with biases."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)
        for linear in (self.w12, self.w3):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., width)."""
        gate, value = self.w12(x).chunk(2, dim=-1)
        out: Tensor = self.w3(F.silu(gate) * value)
        return out


class SelfAttention(nn.Module):
    """Multi-head self-attention with one projection for query, key and value.

    The position is added to query and key, never to the value (DETR). State-dict names equal
    those of torch.nn.MultiheadAttention.
    """

    def __init__(self, hidden_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * hidden_dim, hidden_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * hidden_dim))
        self.out_proj = nn.Linear(hidden_dim, hidden_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, position: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x: (B, N, C) tokens.
            position: (B or 1, N, C) position embedding.
            allowed: (N, N) bool, True where the row may attend to the column; None allows all.

        Returns:
            (B, N, C).
        """
        width = x.shape[-1]
        weight, bias = self.in_proj_weight, self.in_proj_bias
        query_key = F.linear(x + position, weight[: 2 * width], bias[: 2 * width])
        value = F.linear(x, weight[2 * width :], bias[2 * width :])
        query, key = query_key.chunk(2, dim=-1)
        query, key, value = (self._split_heads(t) for t in (query, key, value))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out

    def _split_heads(self, tokens: Tensor) -> Tensor:
        """(B, N, C) to (B, M, N, C / M)."""
        heads: Tensor = tokens.unflatten(-1, (self.num_heads, -1))
        return heads.transpose(1, 2)
