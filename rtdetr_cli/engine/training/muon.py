"""Muon for the hidden matrices and AdamW for everything else, as one optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from rtdetr_cli.core.errors import UsageError

_ENDS = ("score_head", "bbox_head", "class_embed")
"""Name parts of first and last layers, for which Muon is not meant (Keller Jordan)."""


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon trains this parameter; PyTorch's accepts matrices only, no convolutions."""
    return parameter.ndim == 2 and not any(end in name for end in _ENDS)


class MuonAdamW(Optimizer):
    """Two optimizers that step together over shared groups and one state.

    Muon's update is scaled to the root mean square of AdamW's (Moonshot, arXiv 2502.16982), so that
    one learning rate serves both.
    """

    def __init__(
        self, matrices: list[dict[str, Any]], others: list[dict[str, Any]], beta1: float = 0.9
    ) -> None:
        """Create both optimizers.

        Args:
            matrices: groups for Muon, of two-dimensional parameters only.
            others: groups for AdamW.
            beta1: decay of AdamW's first moment.

        Raises:
            UsageError: this PyTorch has no Muon, or there is no hidden matrix.
        """
        if not hasattr(torch.optim, "Muon"):
            raise UsageError(f"optimizer=muon needs PyTorch 2.9, this is {torch.__version__}")
        if not matrices or not others:
            raise UsageError("optimizer=muon finds no hidden matrices among what is trained")
        super().__init__([*matrices, *others], {})
        split = len(matrices)
        self._muon = torch.optim.Muon(self.param_groups[:split], adjust_lr_fn="match_rms_adamw")
        self._adamw = AdamW(self.param_groups[split:], betas=(beta1, 0.999), fused=True)
        self._share()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Step both optimizers."""
        self._muon.step()
        self._adamw.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of `state_dict`."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Point both optimizers to the groups and state of this one, which loading replaces."""
        split = len(self._muon.param_groups)
        self._muon.param_groups = self.param_groups[:split]
        self._adamw.param_groups = self.param_groups[split:]
        self._muon.state = self._adamw.state = self.state
