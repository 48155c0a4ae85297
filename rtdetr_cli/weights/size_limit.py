"""Whether an architecture is as small as the weights beside it: asked before it is built."""

from __future__ import annotations

from rtdetr_cli.config.scale import check_activations, check_architecture, least_amount
from rtdetr_cli.core.errors import ConfigError, WeightsError
from rtdetr_cli.weights.checkpoint import Checkpoint


def check_scale(checkpoint: Checkpoint, origin: str) -> None:
    """Make sure that the network of a checkpoint is no larger than its weights or any real one.

    Raises:
        WeightsError: it would have more tensors or more values, or a weight has none.
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
