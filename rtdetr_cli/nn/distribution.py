"""Parts of fine-grained distribution refinement (D-FINE, arXiv 2410.13842, section 4.1).

core/distribution.py has the weighting function and the boxes, fdr_decoder.py puts them together.
Legend: B batch, Q queries, C hidden_dim, K classes, R + 1 bins of each of 4 edges.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtdetr_cli.nn.layers import MLP, Activation

_TOP_BINS = 4
"""Probabilities of an edge that the quality is estimated from (official D-FINE, `LQE`)."""
_QUALITY_WIDTH = 64


def probabilities(corners: Tensor) -> Tensor:
    """(B, Q, 4, R + 1) logits to probabilities of the bins, in float32 at least."""
    return corners.to(torch.promote_types(corners.dtype, torch.float32)).softmax(dim=-1)


def expected_distances(corners: Tensor, bins: Tensor) -> Tensor:
    """Expected value of each edge's distance: (B, Q, 4, R + 1) logits, (R + 1,) bins: (B, Q, 4).

    A sum, because autocast would round a product of matrices to 16 bits.
    """
    return (probabilities(corners) * bins).sum(dim=-1)


class LocationQuality(nn.Module):
    """Adds to all class logits how sharp the distributions of a box are (D-FINE's "LQE")."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.reg_conf = MLP((4 * (_TOP_BINS + 1), _QUALITY_WIDTH, 1), activation)
        for parameter in self.reg_conf.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, logits: Tensor, corners: Tensor) -> Tensor:
        """(B, Q, K) class logits and (B, Q, 4, R + 1) corners to class logits."""
        largest = probabilities(corners).topk(_TOP_BINS, dim=-1).values
        sharpness = torch.cat((largest, largest.mean(dim=-1, keepdim=True)), dim=-1)
        out: Tensor = logits + self.reg_conf(sharpness.flatten(-2))
        return out


class Gate(nn.Module):
    """Weighs a query against what it sampled, in place of a residual (D-FINE's target gating)."""

    def __init__(self, width: int, norm: nn.Module) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * width, 2 * width)
        self.norm = norm
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, content: Tensor, sampled: Tensor) -> Tensor:
        """(B, Q, C) and (B, Q, C) to (B, Q, C)."""
        both = torch.cat((content, sampled), dim=-1)
        keep, take = self.gate(both).sigmoid().chunk(2, dim=-1)
        out: Tensor = self.norm(keep * content + take * sampled)
        return out
