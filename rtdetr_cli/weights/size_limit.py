"""Check, before building it, that a network is no larger than the weights in its file."""

from __future__ import annotations

from rtdetr_cli.config.scale import check_activations, check_architecture, least_amount
from rtdetr_cli.core.errors import ConfigError, WeightsError
from rtdetr_cli.weights.checkpoint import Checkpoint


def check_scale(checkpoint: Checkpoint, origin: str) -> None:
    """Reject a checkpoint whose network is larger than its weights or than any real network.

    Raises:
        WeightsError: The network has more tensors or values, or a weight is empty.
    """
    try:
        check_architecture(checkpoint.config, origin)
        check_activations(checkpoint.config, checkpoint.preprocessing.size_hw, origin)
    except ConfigError as error:
        raise WeightsError(str(error)) from None
    empty = next((name for name, t in checkpoint.weights.items() if not t.numel()), None)
    if empty is not None:
        raise WeightsError(f"{origin} is damaged: {empty} has no values")
    tensors, values = least_amount(checkpoint.config, len(checkpoint.names))
    stored = sum(tensor.numel() for tensor in checkpoint.weights.values())
    if tensors > len(checkpoint.weights) or values > stored:
        raise WeightsError(
            f"{origin} does not fit: its architecture is larger than its {stored} weights"
        )
