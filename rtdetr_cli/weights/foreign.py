"""Read state dicts of other families: recognise them and rename their tensors.

Every family maps to the "hub" names: those of the official v2 code and of our network, by the
tables of name_tables.py. ultralytics.py derives layer-numbered names from the order of the layers;
decoder_family.py tells apart the families that share names; architecture.py infers the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rtdetr_cli.config.fields import MAX_SIDE
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.coco_classes import COCO_NAMES
from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.weights.architecture import Facts, infer_config
from rtdetr_cli.weights.checkpoint import Checkpoint
from rtdetr_cli.weights.decoder_family import (
    activation_of,
    find_family,
    has_distributions,
    share_box_heads,
    take_scale,
    title_of,
)
from rtdetr_cli.weights.name_tables import (
    HUGGING_FACE,
    HUGGING_FACE_DFINE,
    OFFICIAL_HGNETV2,
    OFFICIAL_V1,
    PADDLE_NAMES,
    Rename,
)
from rtdetr_cli.weights.objects365 import OBJECTS365_NAMES
from rtdetr_cli.weights.paddle import number_blocks, transpose_linears
from rtdetr_cli.weights.ultralytics import hub_names, restore_norms

MAX_CLASSES = 2**16
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Family:
    """A naming scheme for the tensors of RT-DETR."""

    title: str
    """Human-readable name."""
    sign: str
    """Regular expression that matches the start of at least one key of every such file."""
    renames: tuple[Rename, ...] = ()
    """Foreign and hub name, applied in order; `*` is a number, a leading dot matches anywhere."""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    """Preprocessing used to train such files."""
    norm_eps: float = 1e-5
    """BatchNorm epsilon, not in the state dict: 1e-5 official, 1e-3 in Ultralytics networks."""
    position_precision: str = "float32"
    """Precision of the position embedding; matters in float64 only."""
    anchor_precision: str = "float32"
    """Precision of the anchors; matters in float64 only."""


PADDLE = Family("Paddle", r"transformer\.|neck\.|.+\._(mean|variance)$", PADDLE_NAMES)

LAYER_NUMBERED = Family(
    "layer-numbered (Ultralytics)",
    r"model\.0\.",
    (),
    Preprocessing(antialias=False),
    1e-3,
    anchor_precision="float64",
)

# The first family whose sign matches is used.
FAMILIES = (
    PADDLE,
    LAYER_NUMBERED,
    Family(
        "Hugging Face D-FINE",
        r"model\.decoder\.pre_bbox_head\.",
        HUGGING_FACE_DFINE,
        position_precision="float64",
        anchor_precision="float64",
    ),
    Family(
        "Hugging Face",
        r"model\.encoder_input_proj\.0\.0\.weight$",
        HUGGING_FACE,
        position_precision="float64",
        anchor_precision="float64",
    ),
    Family("official", r"decoder\.pre_bbox_head\.", OFFICIAL_HGNETV2),
    Family("official v2", r"encoder\.input_proj\.0\.conv\.weight$"),
    Family("official v1", r"encoder\.input_proj\.0\.0\.weight$", OFFICIAL_V1),
)

_FUSED = (
    "fused file: norms were folded into the convolutions and are replaced by neutral ones; "
    "predictions are the same, but for training use the file before fusing"
)

# Derivable, tied to other tensors, or counters: dropped in every family.
_DERIVABLE = (
    "num_batches_tracked",
    ".anchors",
    ".valid_mask",
    "num_points_scale",
    "n_points_scale",
)
_TIED = ("class_embed.", "bbox_embed.")
_DISTILLATION = ("encoder.feature_projector.", "teacher")
"""Tensors that connect the encoder of RT-DETRv4 to its teacher in training."""

# Related networks with official names but other modules: a pattern, and what it indicates.
_RELATIVES = (
    (r"backbone\.(dinov3|sta)\.", "DEIMv2 on DINOv3, a backbone with a licence of its own"),
    (r"decoder\.tgt_embed\.", "a decoder with learned queries"),
)
_OFFICIAL_HEAD = "decoder.enc_score_head.weight"
"""Name of a tensor of every official network, and the end of no name of another family."""
_OTHER_DEIMV2 = "model.conv_encoder."
"""Start of the names of DEIMv2 in transformers."""


def read_foreign(state: State, origin: str, facts: Facts | None = None) -> Checkpoint:
    """Convert the state dict of any family to a checkpoint.

    Args:
        state: tensors by the names of one family; dtypes are kept.
        origin: the file's name, for messages.
        facts: metadata of the file.

    Raises:
        WeightsError: The family is unknown, or the tensors are not those of an RT-DETR.
    """
    facts = facts or Facts()
    state, wrapper = unwrapped(state)
    family = recognise(state, origin)
    facts = replace(
        facts,
        norm_eps=facts.norm_eps or family.norm_eps,
        num_points=facts.num_points or points_per_level(state),
        position_precision=family.position_precision,
        families=("rtdetrv4",) if is_taught(state) else facts.families,
        anchor_precision=facts.anchor_precision or family.anchor_precision,
    )
    notes = [*([f"weights taken from {wrapper}"] if wrapper else []), *facts.notes]
    kept = _without_extras(state, notes)
    weights = _hub_weights(kept, family, facts, origin, notes)
    _refuse_relatives(weights, origin)
    num_classes = count_classes(weights, origin)
    facts = _with_decoder(weights, facts, origin, notes)
    if append_padding_class(weights, num_classes):
        notes.append("a row of zeros appended to the denoising embedding")
    names = facts.names or default_names(num_classes)
    if len(names) != num_classes:
        raise WeightsError(f"{origin} has {num_classes} classes, but {len(names)} class names")
    config = infer_config(weights, facts, origin)
    size_hw = facts.size_hw or trained_size(state, config.strides) or config.size_hw
    return Checkpoint(
        config=config,
        names=names,
        preprocessing=replace(family.preprocessing, size_hw=size_hw),
        weights=weights,
        origin=f"{_title(family, facts)} names",
        notes=tuple(notes),
        licence=facts.licence,
    )


def _title(family: Family, facts: Facts) -> str:
    return f"official {title_of(facts.family)}" if family.title == "official" else family.title


def _with_decoder(weights: dict[str, Tensor], facts: Facts, origin: str, notes: list[str]) -> Facts:
    """Facts on the decoder: family, activation, `reg_scale`, shared heads; completes `weights`."""
    scale = take_scale(weights, origin)
    if scale and facts.reg_scale not in {None, scale}:
        notes.append(f"reg_scale {scale:g}, as the tensor says; config.json: {facts.reg_scale:g}")
    family = find_family(weights, origin, facts.family, facts.families)
    return replace(
        facts,
        family=family,
        activation=activation_of(family),
        reg_scale=scale,
        shared_box_head=share_box_heads(weights),
    )


def _without_extras(state: State, notes: list[str]) -> dict[str, Tensor]:
    """The tensors of the network; appends to `notes` what was dropped."""
    derivable = [k for k in state if k.endswith(_DERIVABLE) or k.startswith(_TIED)]
    teaching = [k for k in state if k.startswith(_DISTILLATION)]
    notes.append(f"{len(derivable)} derivable buffers dropped")
    if teaching:
        notes.append(f"{len(teaching)} distillation tensors dropped: {teaching[0]}...")
    dropped = {*derivable, *teaching}
    return {key: tensor for key, tensor in state.items() if key not in dropped}


def _hub_weights(
    state: State, family: Family, facts: Facts, origin: str, notes: list[str]
) -> dict[str, Tensor]:
    """The tensors under hub names in PyTorch layout; appends to `notes` what was changed."""
    if family is PADDLE:
        notes.append("2-D weights transposed: Paddle stores them as (in, out)")
        return transpose_linears(rename(number_blocks(state), family.renames))
    if family is LAYER_NUMBERED:
        restored = restore_norms(state, facts.norm_eps or family.norm_eps)
        if restored.keys() != state.keys():
            notes.append(_FUSED)
        hub = hub_names(restored, origin)
        return {hub[key]: tensor for key, tensor in restored.items()}
    return join_query_key_value(rename(state, family.renames))


def _refuse_relatives(weights: State, origin: str) -> None:
    """Reject networks that share most names with RT-DETR but compute something else."""
    for sign, network in _RELATIVES:
        found = [key for key in weights if re.match(sign, key)]
        if found:
            more = ", ..." if len(found) > 3 else ""
            raise WeightsError(
                f"{origin} fits no RT-DETR: {', '.join(found[:3])}{more} belong to {network}"
            )


def unwrapped(state: State) -> tuple[State, str]:
    """The tensors of the network alone, where a program saved its own modules around it.

    Returns:
        The tensors without the names of those modules (averaged weights before raw ones), and
        what these names are, for a note; empty for none and for `module`.
    """
    state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    found = sorted(key[: -len(_OFFICIAL_HEAD)] for key in state if key.endswith(_OFFICIAL_HEAD))
    if not found or "" in found:
        return state, ""
    prefix = next((one for one in found if "ema" in one), found[0])
    named = {
        key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)
    }
    return named, prefix.rstrip(".")


def is_taught(state: State) -> bool:
    """Whether a decoder of distributions comes with the projector to the teacher of RT-DETRv4."""
    return has_distributions(state) and any(key.startswith(_DISTILLATION[0]) for key in state)


def recognise(state: State, origin: str) -> Family:
    """Find the family whose sign matches a key."""
    if any(key.startswith(_OTHER_DEIMV2) for key in state):
        raise WeightsError(
            f"{origin} holds DEIMv2 as transformers has it, which is another network (a norm "
            "behind the memory, ReLU in its heads); open the file of DEIMv2's authors instead"
        )
    for family in FAMILIES:
        if any(re.match(family.sign, key) for key in state):
            return family
    if any(key.endswith(("_moment1_0", "_velocity_0")) for key in state):
        raise WeightsError(
            f"{origin} is a Paddle optimizer state; open the .pdparams file next to it"
        )
    raise WeightsError(f"{origin} holds {len(state)} tensors but no RT-DETR of a known family")


def rename(state: State, renames: tuple[Rename, ...]) -> dict[str, Tensor]:
    """Rename the tensors to hub names."""
    rules = [(_pattern(foreign), _replacement(hub)) for foreign, hub in renames]
    renamed = {}
    for key, tensor in state.items():
        for pattern, replacement in rules:
            key = pattern.sub(replacement, key)
        renamed[key] = tensor
    return renamed


def _pattern(template: str) -> re.Pattern[str]:
    anchor = "" if template.startswith(".") else "^"
    return re.compile(anchor + re.escape(template).replace(r"\*", r"(\d+)"))


def _replacement(template: str) -> str:
    parts = template.split("*")
    return parts[0] + "".join(rf"\g<{i}>{part}" for i, part in enumerate(parts[1:], start=1))


def join_query_key_value(state: State) -> dict[str, Tensor]:
    """Stack the separate q, k and v projections of Hugging Face, as PyTorch attention does."""
    joined: dict[str, Tensor] = {}
    for key, tensor in state.items():
        stem, projection, kind = key.rpartition("q_proj.")
        if projection and f"{stem}k_proj.{kind}" in state and f"{stem}v_proj.{kind}" in state:
            parts = [tensor, state[f"{stem}k_proj.{kind}"], state[f"{stem}v_proj.{kind}"]]
            if tensor.ndim and len({part.shape for part in parts}) == 1:
                joined[f"{stem}in_proj_{kind}"] = torch.cat(parts)
        elif "k_proj." not in key and "v_proj." not in key:
            joined[key] = tensor
    return joined


def count_classes(weights: State, origin: str) -> int:
    """Number of rows of the class head of the first decoder layer."""
    head = weights.get("decoder.dec_score_head.0.weight")
    selection = weights.get("decoder.enc_score_head.weight")
    if head is None or selection is None or not head.numel():
        raise WeightsError(f"{origin} has no class heads; is it only a backbone?")
    if selection.shape != head.shape:
        raise WeightsError(f"{origin} selects queries class-agnostically, which is not supported")
    if head.ndim != 2 or head.shape[0] > MAX_CLASSES:
        raise WeightsError(
            f"{origin} has a class head of shape {tuple(head.shape)}, which no RT-DETR has"
        )
    return int(head.shape[0])


def append_padding_class(weights: dict[str, Tensor], num_classes: int) -> bool:
    """Add the padding row of the denoising embedding, if the family does not store it.

    The row is used in training only, and its gradient is always zero.
    """
    key = "decoder.denoising_class_embed.weight"
    embedding = weights.get(key)
    if embedding is None or embedding.ndim != 2 or embedding.shape[0] != num_classes:
        return False
    weights[key] = torch.cat([embedding, torch.zeros_like(embedding[:1])])
    return True


def points_per_level(state: State) -> tuple[int, ...] | None:
    """Sampling points per level, from the scales (1/n, n times) that v2 files store."""
    for key, tensor in state.items():
        if key.endswith(("num_points_scale", "n_points_scale")):
            scales = tensor.double().flatten().tolist()
            points: list[int] = []
            while sum(points) < len(scales) and 1 / len(scales) <= scales[sum(points)] <= 1:
                points.append(round(1 / scales[sum(points)]))
            return tuple(points)
    return None


def trained_size(state: State, strides: tuple[int, ...]) -> tuple[int, int] | None:
    """Side of the square images for which the file has anchors; None if it has none."""
    anchors = next((t for key, t in state.items() if key.endswith(".anchors")), None)
    if anchors is None or anchors.ndim != 3:
        return None
    side = 32 * round((anchors.shape[1] / sum((32 / stride) ** 2 for stride in strides)) ** 0.5)
    is_square = anchors.shape[1] == sum((side // stride) ** 2 for stride in strides)
    return (side, side) if is_square and 0 < side <= MAX_SIDE else None


def default_names(num_classes: int) -> dict[int, str]:
    """COCO names for 80 classes, Objects365 for 366 (row = id), else class0, class1..."""
    for known in (COCO_NAMES, OBJECTS365_NAMES):
        if num_classes == len(known):
            return dict(known)
    return {index: f"class{index}" for index in range(num_classes)}
