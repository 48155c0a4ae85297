"""Tell D-FINE, DEIM, RT-DETRv4 and DEIMv2 apart, which share the names of their tensors.

The decoder of D-FINE has ReLU where that of DEIM and RT-DETRv4 has SiLU, and no tensor shows it: a
network with the wrong one finds a quarter of the objects. So the file's name or `family=` must.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from rtdetr_cli.config.model import DEIMv2DecoderConfig, FDRDecoderConfig, ModelConfig
from rtdetr_cli.core.errors import WeightsError

State = Mapping[str, Tensor]

_TITLES = {
    "rtdetr": "RT-DETR",
    "dfine": "D-FINE",
    "deim": "DEIM",
    "rtdetrv4": "RT-DETRv4",
    "deimv2": "DEIMv2",
}
_SILU = ("deim", "rtdetrv4", "deimv2")
_FILE_NAMES = (
    ("deimv2", r"deim[-_]?v2"),
    ("deim", r"deim"),
    ("rtdetrv4", r"rt[-_]?(detr[-_]?)?v4"),
    ("dfine", r"d[-_]?fine"),
)
"""How the published files of a family begin."""
_UP = 0.5
"""`decoder.up`, a constant in all of them."""
_DEIMV2 = re.compile(r"decoder\.decoder\.layers\.0\.(swish_ffn\.|norm1\.scale)")
_BOX_HEAD = re.compile(r"decoder\.dec_bbox_head\.(\d+)\.(.+)")


def has_distributions(weights: State) -> bool:
    """Whether the decoder refines distributions: D-FINE's and all that grew out of it."""
    return any(key.startswith("decoder.pre_bbox_head.") for key in weights)


def is_deimv2(weights: State) -> bool:
    """Whether the decoder has RMSNorm and SwiGLU."""
    return any(_DEIMV2.match(key) for key in weights)


def title_of(family: str | None) -> str:
    """Name of a family in sentences."""
    return _TITLES[family or "rtdetr"]


def activation_of(family: str) -> str:
    """Activation of the decoder of a family."""
    return "silu" if family in _SILU else "relu"


def find_family(weights: State, origin: str, told: str | None, possible: tuple[str, ...]) -> str:
    """The family of a file.

    Args:
        weights: tensors by hub names.
        origin: the file's name.
        told: what the user gave as `family=`.
        possible: families that metadata of the file allow; empty if it has none.

    Raises:
        WeightsError: the tensors fit several families and neither the name nor the user says which,
            or what they say contradicts the tensors.
    """
    fitting = _fitting(weights)
    fitting = tuple(one for one in fitting if not possible or one in possible) or possible
    named = _family_in_name(origin)
    if fitting == ("deimv2",) and named == "deim":
        named = "deimv2"
    for family, source in ((told, f"family={told}"), (named, "the name of the file")):
        if family and family not in fitting:
            tensors = " or ".join(_TITLES[one] for one in fitting)
            raise WeightsError(
                f"{origin} holds {tensors}, but {source} says {_TITLES[family]}: "
                f"{'leave the key out' if family is told else 'rename the file'}"
            )
    if told and named and told != named:
        raise WeightsError(
            f"{origin} is {_TITLES[named]} by its name and {_TITLES[told]} by family={told}: "
            "rename the file or leave the key out"
        )
    if len({activation_of(family) for family in fitting}) > 1 and not (told or named):
        raise WeightsError(
            f"{origin} fits D-FINE, whose decoder has ReLU, as well as DEIM and RT-DETRv4, whose "
            "decoder has SiLU; say which with family=dfine, family=deim or family=rtdetrv4, or "
            "begin the name of the file with dfine, deim or rtdetrv4"
        )
    return told or named or fitting[0]


def _fitting(weights: State) -> tuple[str, ...]:
    """Families whose tensors these may be."""
    if has_distributions(weights):
        return ("deimv2",) if is_deimv2(weights) else ("dfine", "deim", "rtdetrv4")
    is_deep = "decoder.query_pos_head.layers.2.weight" in weights
    return ("deim",) if is_deep else ("rtdetr",)


def _family_in_name(origin: str) -> str | None:
    name = origin.lower()
    return next((family for family, start in _FILE_NAMES if re.match(start, name)), None)


def check_told(config: ModelConfig, told: str | None, origin: str) -> None:
    """Reject a `family=` that contradicts the architecture recorded in a file of ours.

    Raises:
        WeightsError: it does.
    """
    decoder = config.decoder
    fits = {
        "dfine": isinstance(decoder, FDRDecoderConfig) and decoder.activation == "relu",
        "rtdetrv4": isinstance(decoder, FDRDecoderConfig) and decoder.activation == "silu",
        "deim": decoder.activation == "silu",
    }
    if told and (isinstance(decoder, DEIMv2DecoderConfig) or not fits[told]):
        raise WeightsError(
            f"{origin} holds {config.name} with {decoder.activation}, but family={told} says "
            f"{_TITLES[told]}: leave the key out"
        )


def check_same_decoder(config: ModelConfig, given: ModelConfig, origin: str) -> None:
    """Reject weights for a decoder of equal tensors that computes something else.

    Args:
        config: the architecture of the network to build.
        given: that of the weights.
        origin: name of the weights.

    Raises:
        WeightsError: another activation, or another `reg_scale`.
    """
    for key in ("activation", "reg_scale"):
        ours, theirs = getattr(config.decoder, key, None), getattr(given.decoder, key, None)
        if None not in {ours, theirs} and ours != theirs:
            raise WeightsError(
                f"{origin} was trained with decoder.{key} {theirs}, but {config.name} has {ours}; "
                f"give model={origin}, or {key}: {theirs} in an architecture of your own"
            )


def take_scale(weights: dict[str, Tensor], origin: str) -> float | None:
    """Remove the constants `up` and `reg_scale`, which have two copies, from the weights.

    Args:
        weights: tensors by hub names; changed.
        origin: the file's name.

    Returns:
        `reg_scale` of the tensors; None for a decoder without distributions.

    Raises:
        WeightsError: a constant is missing, has two values, or one that no such network has.
    """
    if not has_distributions(weights):
        return None
    found = {
        name: {
            float(weights.pop(key).double().flatten()[0])
            for key in (f"decoder.{name}", f"decoder.decoder.{name}")
            if key in weights and weights[key].numel() == 1
        }
        for name in ("up", "reg_scale")
    }
    for name, values in found.items():
        if len(values) != 1:
            amounts = " and ".join(f"{value:g}" for value in sorted(values)) or "none"
            raise WeightsError(f"{origin} must have one value of decoder.{name}, found {amounts}")
    if found["up"] != {_UP}:
        raise WeightsError(f"{origin} has decoder.up {found['up'].pop():g}, which must be {_UP}")
    return found["reg_scale"].pop()


def share_box_heads(weights: dict[str, Tensor]) -> bool:
    """Keep one box head of DEIMv2 if all layers have the same, as the network does.

    Official files hold it once per layer, those of the hub once, as safetensors has no aliases.

    Args:
        weights: tensors by hub names; changed.

    Returns:
        Whether all layers have the same head.
    """
    heads: dict[str, dict[str, Tensor]] = {}
    for key, tensor in weights.items():
        found = _BOX_HEAD.match(key)
        if found:
            heads.setdefault(found[1], {})[found[2]] = tensor
    if not (heads and is_deimv2(weights) and "decoder.dec_score_head.1.weight" in weights):
        return False
    first, *others = heads.values()
    if any(not _equal(first, other) for other in others):
        return False
    for key in [key for key in weights if _BOX_HEAD.match(key)]:
        del weights[key]
    weights.update({f"decoder.dec_bbox_head.0.{name}": tensor for name, tensor in first.items()})
    return True


def _equal(head: State, other: State) -> bool:
    return head.keys() == other.keys() and all(torch.equal(head[key], other[key]) for key in head)
