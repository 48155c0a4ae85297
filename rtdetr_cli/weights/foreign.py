"""Checkpoints of other families: their names as tables, and what they are recognised by.

Official v2 names are the hub and the names of our own network; every family maps to them.
Layer-numbered names (Ultralytics) follow from the order of the layers: ultralytics.py. What kind of
RT-DETR the tensors belong to is read from their shapes: architecture.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.weights.architecture import Facts, infer_config
from rtdetr_cli.weights.catalog import COCO_NAMES
from rtdetr_cli.weights.checkpoint import Checkpoint
from rtdetr_cli.weights.paddle import number_blocks, transpose_linears
from rtdetr_cli.weights.ultralytics import hub_names, restore_norms

MAX_CLASSES = 2**16
State = Mapping[str, Tensor]
Rename = tuple[str, str]


@dataclass(frozen=True)
class Family:
    """A way of naming the tensors of RT-DETR."""

    title: str
    """For people."""
    sign: str
    """A regular expression: some key of such a file matches it from its start."""
    renames: tuple[Rename, ...] = ()
    """Foreign and hub name, applied in order; `*` is a number, a leading dot means anywhere."""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    """How its images were read."""
    norm_eps: float = 1e-5
    """No state dict stores it: 1e-5 official, 1e-3 in networks built by Ultralytics."""
    position_precision: str = "float32"
    """What its networks compute the position embedding in; seen in float64 only."""
    anchor_precision: str = "float32"
    """What its networks compute the anchors in; seen in float64 only."""


OFFICIAL_V1: tuple[Rename, ...] = (
    ("encoder.input_proj.*.0.", "encoder.input_proj.*.conv."),
    ("encoder.input_proj.*.1.", "encoder.input_proj.*.norm."),
    ("decoder.enc_output.0.", "decoder.enc_output.proj."),
    ("decoder.enc_output.1.", "decoder.enc_output.norm."),
)

_HF_STAGE = "model.backbone.model.encoder.stages.*.layers.*."
_HUB_STAGE = "backbone.res_layers.*.blocks.*."

_PADDLE_FPN = "neck.fpn_blocks.*.bottlenecks.*.conv*."
_PADDLE_PAN = "neck.pan_blocks.*.bottlenecks.*.conv*."

HUGGING_FACE: tuple[Rename, ...] = (
    # transformers 5 uses other names in memory than on disk
    ("model.encoder.aifi.", "model.encoder.encoder."),
    (".self_attn.o_proj.", ".self_attn.out_proj."),
    (".mlp.fc*.", ".fc*."),
    # backbone
    ("model.backbone.model.embedder.embedder.0.", "backbone.conv1.conv1_1."),
    ("model.backbone.model.embedder.embedder.1.", "backbone.conv1.conv1_2."),
    ("model.backbone.model.embedder.embedder.2.", "backbone.conv1.conv1_3."),
    (_HF_STAGE + "layer.0.", _HUB_STAGE + "branch2a."),
    (_HF_STAGE + "layer.1.", _HUB_STAGE + "branch2b."),
    (_HF_STAGE + "layer.2.", _HUB_STAGE + "branch2c."),
    (_HF_STAGE + "shortcut.1.", _HUB_STAGE + "short.conv."),
    (_HF_STAGE + "shortcut.", _HUB_STAGE + "short."),
    (".convolution.", ".conv."),
    (".normalization.", ".norm."),
    # encoder
    ("model.encoder_input_proj.*.0.", "encoder.input_proj.*.conv."),
    ("model.encoder_input_proj.*.1.", "encoder.input_proj.*.norm."),
    ("model.encoder.encoder.*.layers.*.self_attn_layer_norm.", "encoder.encoder.*.layers.*.norm1."),
    ("model.encoder.encoder.*.layers.*.final_layer_norm.", "encoder.encoder.*.layers.*.norm2."),
    ("model.encoder.", "encoder."),
    # decoder
    ("model.decoder_input_proj.*.0.", "decoder.input_proj.*.conv."),
    ("model.decoder_input_proj.*.1.", "decoder.input_proj.*.norm."),
    ("model.enc_output.0.", "decoder.enc_output.proj."),
    ("model.enc_output.1.", "decoder.enc_output.norm."),
    ("model.enc_score_head.", "decoder.enc_score_head."),
    ("model.enc_bbox_head.", "decoder.enc_bbox_head."),
    ("model.denoising_class_embed.", "decoder.denoising_class_embed."),
    ("model.decoder.query_pos_head.", "decoder.query_pos_head."),
    ("model.decoder.class_embed.", "decoder.dec_score_head."),
    ("model.decoder.bbox_embed.", "decoder.dec_bbox_head."),
    ("model.decoder.layers.*.self_attn_layer_norm.", "decoder.decoder.layers.*.norm1."),
    ("model.decoder.layers.*.encoder_attn_layer_norm.", "decoder.decoder.layers.*.norm2."),
    ("model.decoder.layers.*.final_layer_norm.", "decoder.decoder.layers.*.norm3."),
    ("model.decoder.layers.*.encoder_attn.", "decoder.decoder.layers.*.cross_attn."),
    ("model.decoder.layers.", "decoder.decoder.layers."),
    (".fc1.", ".linear1."),
    (".fc2.", ".linear2."),
)

PADDLE_NAMES: tuple[Rename, ...] = (
    ("._mean", ".running_mean"),
    ("._variance", ".running_var"),
    # its stem pads inside the convolution
    ("backbone.stem.stem2a.conv.", "backbone.stem.stem2a.conv.1."),
    ("backbone.stem.stem2b.conv.", "backbone.stem.stem2b.conv.1."),
    # encoder
    ("neck.input_proj.*.0.", "encoder.input_proj.*.conv."),
    ("neck.input_proj.*.1.", "encoder.input_proj.*.norm."),
    ("neck.lateral_convs.*.bn.", "encoder.lateral_convs.*.norm."),
    ("neck.downsample_convs.*.bn.", "encoder.downsample_convs.*.norm."),
    ("neck.fpn_blocks.*.conv*.bn.", "encoder.fpn_blocks.*.conv*.norm."),
    ("neck.pan_blocks.*.conv*.bn.", "encoder.pan_blocks.*.conv*.norm."),
    (_PADDLE_FPN + "bn.", _PADDLE_FPN.replace("neck.", "encoder.") + "norm."),
    (_PADDLE_PAN + "bn.", _PADDLE_PAN.replace("neck.", "encoder.") + "norm."),
    ("neck.", "encoder."),
    # decoder
    ("transformer.enc_output.0.", "decoder.enc_output.proj."),
    ("transformer.enc_output.1.", "decoder.enc_output.norm."),
    ("transformer.", "decoder."),
)

PADDLE = Family("Paddle", r"transformer\.|neck\.|.+\._(mean|variance)$", PADDLE_NAMES)

LAYER_NUMBERED = Family(
    "layer-numbered (Ultralytics)",
    r"model\.0\.",
    (),
    Preprocessing(antialias=False),
    1e-3,
    anchor_precision="float64",
)

# The first whose sign is found wins.
FAMILIES = (
    PADDLE,
    LAYER_NUMBERED,
    Family(
        "Hugging Face",
        r"model\.encoder_input_proj\.0\.0\.weight$",
        HUGGING_FACE,
        position_precision="float64",
        anchor_precision="float64",
    ),
    Family("official v2", r"encoder\.input_proj\.0\.conv\.weight$"),
    Family("official v1", r"encoder\.input_proj\.0\.0\.weight$", OFFICIAL_V1),
)

_FUSED = (
    "fused file: its norms were already folded into the convolutions; neutral ones stand in for "
    "them, which predict the same, but training is better begun from the file before fusing"
)

# Derivable, tied to others, or counters: dropped from every family.
_DERIVABLE = (
    "num_batches_tracked",
    ".anchors",
    ".valid_mask",
    "num_points_scale",
    "n_points_scale",
)
_TIED = ("class_embed.", "bbox_embed.")
_DISTILLATION = ("encoder.feature_projector.", "teacher")
"""What ties RT-DETRv4's encoder to its teacher while it trains."""

# Relatives with the names of official v2 but other parts: what shows it, and what they are.
_RELATIVES = (
    (
        r"decoder\.(pre_bbox_head\.|up$|reg_scale$|integral\.|decoder\.lqe_layers\.)",
        "the decoder of D-FINE, which RT-DETRv4 and DEIM-D-FINE share",
    ),
    (r"backbone\..*\.lab\.|encoder\.(fpn|pan)_blocks\.\d\.cv\d\.", "a network of D-FINE's"),
    (
        r"decoder\.query_pos_head\.layers\.2\.",
        "the decoder of DEIM's RT-DETRv2, which has SiLU and a deeper position head",
    ),
    (r"decoder\.tgt_embed\.", "a decoder with learned queries"),
)


def read_foreign(state: State, origin: str, facts: Facts | None = None) -> Checkpoint:
    """A checkpoint of ours from the state dict of any family.

    Args:
        state: tensor names of one family; the tensors are taken as they are, whatever dtype.
        origin: the file's name, for messages.
        facts: what the file says beyond its tensors.

    Raises:
        WeightsError: The family is not known, or the tensors are not those of an RT-DETR.
    """
    facts = facts or Facts()
    state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    family = recognise(state, origin)
    facts = replace(
        facts,
        norm_eps=facts.norm_eps or family.norm_eps,
        num_points=facts.num_points or points_per_level(state),
        position_precision=family.position_precision,
        anchor_precision=facts.anchor_precision or family.anchor_precision,
    )
    notes = list(facts.notes)
    kept = _without_extras(state, notes)
    weights = _hub_weights(kept, family, facts, origin, notes)
    _refuse_relatives(weights, origin)
    num_classes = count_classes(weights, origin)
    if append_padding_class(weights, num_classes):
        notes.append("a row of zeros appended to the denoising embedding")
    names = facts.names or default_names(num_classes)
    if len(names) != num_classes:
        notes.append(f"{len(names)} class names ignored: the heads have {num_classes} classes")
        names = default_names(num_classes)
    return Checkpoint(
        config=infer_config(weights, facts, origin),
        names=names,
        preprocessing=replace(
            family.preprocessing, size_hw=facts.size_hw or family.preprocessing.size_hw
        ),
        weights=weights,
        origin=f"{family.title} names",
        notes=tuple(notes),
    )


def _without_extras(state: State, notes: list[str]) -> dict[str, Tensor]:
    """What the network is made of; `notes` says what was left out."""
    derivable = [k for k in state if k.endswith(_DERIVABLE) or k.startswith(_TIED)]
    teaching = [k for k in state if k.startswith(_DISTILLATION)]
    notes.append(f"{len(derivable)} derivable buffers dropped")
    if teaching:
        notes.append(f"{len(teaching)} tensors of its distillation dropped: {teaching[0]}...")
    dropped = {*derivable, *teaching}
    return {key: tensor for key, tensor in state.items() if key not in dropped}


def _hub_weights(
    state: State, family: Family, facts: Facts, origin: str, notes: list[str]
) -> dict[str, Tensor]:
    """The tensors under hub names and in torch's layout; `notes` says what was done to them."""
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
    """Networks that share most names with RT-DETR and compute something else."""
    for sign, network in _RELATIVES:
        found = [key for key in weights if re.match(sign, key)]
        if found:
            more = ", ..." if len(found) > 3 else ""
            raise WeightsError(
                f"{origin} fits no RT-DETR: {', '.join(found[:3])}{more} belong to {network}"
            )


def recognise(state: State, origin: str) -> Family:
    """The family whose sign stands among the keys."""
    for family in FAMILIES:
        if any(re.match(family.sign, key) for key in state):
            return family
    if any(key.endswith(("_moment1_0", "_velocity_0")) for key in state):
        raise WeightsError(
            f"{origin} is the state of Paddle's optimizer; open the .pdparams beside it"
        )
    raise WeightsError(f"{origin} holds {len(state)} tensors but no RT-DETR of a known family")


def rename(state: State, renames: tuple[Rename, ...]) -> dict[str, Tensor]:
    """The same tensors under hub names."""
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
    """Hugging Face keeps q, k and v apart; torch's attention has them stacked."""
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
    """Rows of the first decoder layer's class head."""
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
    """Add the denoising embedding's padding row where the family stores none.

    It is used in training only and its gradient is always zero.
    """
    key = "decoder.denoising_class_embed.weight"
    embedding = weights.get(key)
    if embedding is None or embedding.ndim != 2 or embedding.shape[0] != num_classes:
        return False
    weights[key] = torch.cat([embedding, torch.zeros_like(embedding[:1])])
    return True


def points_per_level(state: State) -> tuple[int, ...] | None:
    """Sampling points of each level, where a v2 file keeps their scale (1/n, n times each)."""
    for key, tensor in state.items():
        if key.endswith(("num_points_scale", "n_points_scale")):
            scales = tensor.double().flatten().tolist()
            points: list[int] = []
            while sum(points) < len(scales) and 1 / len(scales) <= scales[sum(points)] <= 1:
                points.append(round(1 / scales[sum(points)]))
            return tuple(points)
    return None


def default_names(num_classes: int) -> dict[int, str]:
    """COCO's names for 80 classes, else class0, class1..."""
    if num_classes == len(COCO_NAMES):
        return dict(COCO_NAMES)
    return {index: f"class{index}" for index in range(num_classes)}
