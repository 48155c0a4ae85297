"""Transfer a checkpoint to another list of classes: rows are matched by class name."""

from __future__ import annotations

import re

from torch import Tensor

SCORE_HEADS = re.compile(r"decoder\.(enc_score_head|dec_score_head\.\d+)\.(weight|bias)")
DENOISING_EMBEDDING = "decoder.denoising_class_embed.weight"
"""These are the tensors whose rows are classes; the embedding has one more, for padding."""


def transfer_classes(
    weights: dict[str, Tensor],
    names: dict[int, str],
    fresh: dict[str, Tensor],
    new_names: dict[int, str],
) -> tuple[dict[str, Tensor], list[str]]:
    """Build weights for a network with other classes.

    A class without a row starts with the mean of all: its score is how much a query looks like an
    object of any class, so that query selection (RT-DETR section 4.3) finds objects from the start.
    Rows of the denoising embedding, which must differ, start fresh.

    Args:
        weights: tensors of the checkpoint.
        names: its class index to name.
        fresh: state dict of a new network with the new classes.
        new_names: class index to name of the new network.

    Returns:
        A complete state dict, and the names whose rows were kept. Case and surrounding spaces of
        names are ignored.
    """
    index_of = {_key(name): index for index, name in names.items()}
    rows = {new: index_of[_key(name)] for new, name in new_names.items() if _key(name) in index_of}
    carried = dict(weights)
    for name, tensor in fresh.items():
        if is_of_classes(name):
            start = tensor if name == DENOISING_EMBEDDING else weights[name].mean(0)
            carried[name] = start.expand_as(tensor).clone()
            for new, old in rows.items():
                carried[name][new] = weights[name][old]
    return carried, [new_names[new] for new in rows]


def is_of_classes(name: str) -> bool:
    """Whether the rows of a tensor are classes."""
    return name == DENOISING_EMBEDDING or SCORE_HEADS.fullmatch(name) is not None


def _key(name: str) -> str:
    return name.strip().casefold()
