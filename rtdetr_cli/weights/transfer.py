"""Transfer a checkpoint to another list of classes: rows are matched by class name."""

from __future__ import annotations

import re

from torch import Tensor

CLASS_TENSORS = re.compile(
    r"decoder\.(enc_score_head|dec_score_head\.\d+)\.(weight|bias)"
    r"|decoder\.denoising_class_embed\.weight"
)
"""Tensors whose rows are classes (the denoising embedding has one more, for padding)."""


def transfer_classes(
    weights: dict[str, Tensor],
    names: dict[int, str],
    fresh: dict[str, Tensor],
    new_names: dict[int, str],
) -> tuple[dict[str, Tensor], list[str]]:
    """Build weights for a network with other classes.

    Args:
        weights: tensors of the checkpoint.
        names: its class index to name.
        fresh: state dict of a new network with the new classes; supplies the rows of classes
            that are not in `names`.
        new_names: class index to name of the new network.

    Returns:
        A complete state dict, and the names whose rows were kept. Case and surrounding spaces of
        names are ignored.
    """
    index_of = {_key(name): index for index, name in names.items()}
    rows = {new: index_of[_key(name)] for new, name in new_names.items() if _key(name) in index_of}
    carried = dict(weights)
    for name, tensor in fresh.items():
        if CLASS_TENSORS.fullmatch(name):
            carried[name] = tensor.clone()
            for new, old in rows.items():
                carried[name][new] = weights[name][old]
    return carried, [new_names[new] for new in rows]


def _key(name: str) -> str:
    return name.strip().casefold()
