"""Infer the architecture of a state dict: widths, depths and kernels from its tensor shapes.

Properties that shapes do not determine (recipe, decoder layers in use) come from the file itself
(`Facts`), else from the shipped architecture with the same shapes, if there is one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from torch import Tensor

from rtdetr_cli.config.fields import FieldError
from rtdetr_cli.config.load import (
    load_model_config,
    model_config_from_dict,
    model_config_to_dict,
)
from rtdetr_cli.config.model import (
    DecoderConfig,
    DEIMv2DecoderConfig,
    EncoderConfig,
    FDRDecoderConfig,
    HGNetv2Config,
    HGStage,
    LiteEncoderConfig,
    ModelConfig,
    PResNetConfig,
)
from rtdetr_cli.core.errors import ConfigError, WeightsError
from rtdetr_cli.core.files import asset_dir
from rtdetr_cli.weights.decoder_family import has_distributions, is_deimv2

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Facts:
    """Metadata of a file besides its tensors; None if absent."""

    names: dict[int, str] | None = None
    norm_eps: float | None = None
    size_hw: tuple[int, int] | None = None
    num_queries: int | None = None
    num_heads: int | None = None
    encoder_heads: int | None = None
    num_points: tuple[int, ...] | None = None
    eval_layers: int | None = None
    sampling: str | None = None
    position_precision: str | None = None
    anchor_precision: str | None = None
    family: str | None = None
    """What the user gave as `family=`, then the family that was found."""
    families: tuple[str, ...] = ()
    """Families that the file allows besides its tensors; empty if it does not say."""
    activation: str | None = None
    reg_scale: float | None = None
    shared_box_head: bool = False
    notes: tuple[str, ...] = ()
    licence: str = ""


def infer_config(weights: State, facts: Facts, origin: str) -> ModelConfig:
    """Infer the architecture of a state dict in hub names.

    Raises:
        WeightsError: A tensor that every RT-DETR has is missing, or the shapes are inconsistent.
    """
    try:
        found = ModelConfig(
            name="rtdetr-custom",
            backbone=_backbone(weights),
            encoder=_encoder(weights, facts),
            decoder=_decoder(weights, facts),
            norm_eps=facts.norm_eps or ModelConfig.norm_eps,
        )
    except KeyError as error:
        raise WeightsError(
            f"{origin} is not a complete RT-DETR: {error.args[0]} is missing"
        ) from None
    except (FieldError, ValueError, IndexError, ZeroDivisionError) as error:
        raise WeightsError(f"{origin} is not a supported RT-DETR: {error}") from None
    try:
        found = model_config_from_dict(model_config_to_dict(found), origin)  # checks each range
    except ConfigError as error:
        raise WeightsError(str(error)) from None
    twin = next((one for one in shipped_configs() if _shapes(one) == _shapes(found)), None)
    return found if twin is None else _like_twin(found, twin, facts)


_NAMES = {
    "deim": (("dfine-", "deim-dfine-"), ("rtdetr-", "deim-rtdetrv2-")),
    "rtdetrv4": (("dfine-", "rtdetrv4-"),),
}
"""Names of networks that differ from a shipped one in their activation."""


def _like_twin(found: ModelConfig, twin: ModelConfig, facts: Facts) -> ModelConfig:
    """Complete an architecture by the shipped one of the same shapes."""
    name = twin.name
    for shipped, own in _NAMES.get(facts.family or "", ()):
        name = re.sub(f"^{shipped}", own, name)
    # DEIM and RT-DETRv4 train the norms and the stem that D-FINE freezes
    thawed = replace(twin.recipe, freeze_backbone_norm=False, freeze_stem=False)
    return replace(
        found,
        name=name,
        recipe=twin.recipe if name == twin.name else thawed,
        encoder=replace(found.encoder, expansion=twin.encoder.expansion),
        decoder=replace(
            found.decoder,
            eval_layers=facts.eval_layers or twin.decoder.eval_layers,
            num_queries=facts.num_queries or twin.decoder.num_queries,
        ),
    )


def infer_backbone(weights: State, origin: str) -> HGNetv2Config | PResNetConfig:
    """Infer the backbone of a state dict in hub names that holds only a backbone.

    Raises:
        WeightsError: A tensor that every such backbone has is missing or has another shape.
    """
    try:
        return _backbone(weights)
    except KeyError as error:
        raise WeightsError(
            f"{origin} is not a complete backbone: {error.args[0]} is missing"
        ) from None
    except (ConfigError, ValueError, IndexError) as error:
        raise WeightsError(f"{origin} is not a supported backbone: {error}") from None


@lru_cache(maxsize=1)
def shipped_configs() -> tuple[ModelConfig, ...]:
    """Every architecture in models/."""
    return tuple(load_model_config(path) for path in sorted(asset_dir("models").glob("*.yaml")))


def _shapes(config: ModelConfig) -> tuple[object, ...]:
    """The part of an architecture that tensor shapes determine."""
    encoder = replace(config.encoder, expansion=1.0)
    if isinstance(encoder, EncoderConfig):
        encoder = replace(encoder, position_precision="float32")
    decoder = replace(
        config.decoder,
        num_queries=1,
        eval_layers=None,
        activation="relu",
        position_layers=2,
        sampling="bilinear",
        anchor_precision="float32",
    )
    return config.backbone, encoder, config.encoder.fusion_width, decoder


def _backbone(weights: State) -> HGNetv2Config | PResNetConfig:
    return _hgnetv2(weights) if _has(weights, "backbone.stem.") else _presnet(weights)


def _hgnetv2(weights: State) -> HGNetv2Config:
    stem = "backbone.stem.stem{}.conv.weight"
    num_stages = _count(weights, "backbone.stages.")
    return HGNetv2Config(
        stem=(_rows(weights, stem.format(1)), _rows(weights, stem.format(4))),
        stages=tuple(_stage(weights, f"backbone.stages.{index}.") for index in range(num_stages)),
        num_maps=_count(weights, "encoder.input_proj.") or HGNetv2Config.num_maps,
        learnable_affine=any(".lab." in key for key in weights),
    )


def _stage(weights: State, prefix: str) -> HGStage:
    block = f"{prefix}blocks.0."
    light = f"{block}layers.0.conv1.conv.weight" in weights
    kernel = weights[f"{block}layers.0.{'conv2.' if light else ''}conv.weight"]
    return HGStage(
        mid=int(kernel.shape[0]),
        out=_rows(weights, f"{block}aggregation_excitation_conv.conv.weight"),
        blocks=_count(weights, f"{prefix}blocks."),
        kernel=int(kernel.shape[-1]),
        layers=_count(weights, f"{block}layers."),
        light=light,
    )


def _presnet(weights: State) -> PResNetConfig:
    stage = "backbone.res_layers.{}.blocks."
    widths = [_rows(weights, f"{stage.format(i)}0.branch2b.conv.weight") for i in range(4)]
    blocks = [_count(weights, stage.format(i)) for i in range(4)]
    stem = [_rows(weights, f"backbone.conv1.conv1_{i}.conv.weight") for i in (1, 2, 3)]
    return PResNetConfig(
        blocks=(blocks[0], blocks[1], blocks[2], blocks[3]),
        bottleneck=_has(weights, "backbone.res_layers.0.blocks.0.branch2c."),
        stem=(stem[0], stem[1], stem[2]),
        widths=(widths[0], widths[1], widths[2], widths[3]),
    )


def _encoder(weights: State, facts: Facts) -> EncoderConfig | LiteEncoderConfig:
    hidden_dim = _rows(weights, "encoder.input_proj.0.conv.weight")
    if _has(weights, "encoder.down_sample1."):
        return LiteEncoderConfig(hidden_dim, *_elan(weights, "encoder.fpn_block.", hidden_dim))
    block = "encoder.fpn_blocks.0."
    if _has(weights, f"{block}cv1."):
        joins = weights[f"{block}cv1.conv.weight"].shape[1] > hidden_dim
        fusion, inner = "elan" if joins else "elan_sum", _elan(weights, block, hidden_dim)
    else:
        width = _rows(weights, f"{block}conv1.conv.weight")
        fusion, inner = "csp", (_count(weights, f"{block}bottlenecks."), width / hidden_dim)
    return EncoderConfig(
        hidden_dim=hidden_dim,
        fusion=fusion,
        ffn_dim=_rows(weights, "encoder.encoder.0.layers.0.linear1.weight"),
        num_layers=_count(weights, "encoder.encoder.0.layers."),
        num_heads=facts.encoder_heads or EncoderConfig.num_heads,
        num_csp_blocks=inner[0],
        expansion=inner[1],
        position_precision=facts.position_precision or EncoderConfig.position_precision,
    )


def _elan(weights: State, block: str, hidden_dim: int) -> tuple[int, float]:
    """RepVGG blocks in a CSP layer of an ELAN block, and its expansion."""
    width = _rows(weights, f"{block}cv2.1.conv.weight")
    # the next larger float: the product with hidden_dim must not fall below twice the width
    expansion = math.nextafter(2 * width / hidden_dim, math.inf)
    return _count(weights, f"{block}cv2.0.bottlenecks."), expansion


def _decoder(weights: State, facts: Facts) -> DecoderConfig:
    parts: dict[str, Any] = {
        "hidden_dim": int(weights["decoder.dec_score_head.0.weight"].shape[1]),
        "num_layers": _count(weights, "decoder.dec_score_head."),
        "num_heads": facts.num_heads or DecoderConfig.num_heads,
        "num_queries": facts.num_queries or DecoderConfig.num_queries,
        "num_points": _points(weights, facts),
        "eval_layers": facts.eval_layers,
        "activation": facts.activation or DecoderConfig.activation,
        "sampling": facts.sampling or DecoderConfig.sampling,
        "anchor_precision": facts.anchor_precision or DecoderConfig.anchor_precision,
    }
    layer = "decoder.decoder.layers.0."
    if not has_distributions(weights):
        depth = _count(weights, "decoder.query_pos_head.layers.")
        ffn_dim = _rows(weights, f"{layer}linear1.weight")
        return DecoderConfig(**parts, ffn_dim=ffn_dim, position_layers=depth)
    parts["reg_max"] = _rows(weights, "decoder.dec_bbox_head.0.layers.2.weight") // 4 - 1
    parts["reg_scale"] = facts.reg_scale
    if not is_deimv2(weights):
        return FDRDecoderConfig(**parts, ffn_dim=_rows(weights, f"{layer}linear1.weight"))
    return DEIMv2DecoderConfig(
        **parts,
        ffn_dim=_rows(weights, f"{layer}swish_ffn.w12.weight"),
        gateway=_has(weights, f"{layer}gateway."),
        shared_box_head=facts.shared_box_head,
    )


_UNEVEN_POINTS = {(12, 3): (3, 6, 3), (6, 2): (4, 2)}
"""Points of a head on all maps, and number of maps: points on each map in D-FINE and DEIMv2."""


def _points(weights: State, facts: Facts) -> tuple[int, ...]:
    """Sampling points of a head on each map: as the file says, else as published networks have."""
    heads = facts.num_heads or DecoderConfig.num_heads
    offsets = _rows(weights, "decoder.decoder.layers.0.cross_attn.sampling_offsets.weight")
    levels = 2 if _has(weights, "encoder.down_sample1.") else _count(weights, "encoder.input_proj.")
    total = offsets // (2 * heads)
    points = facts.num_points or (total // levels,) * levels
    if facts.num_points is None and has_distributions(weights):
        points = _UNEVEN_POINTS.get((total, levels), points)
    if len(points) != levels or 2 * heads * sum(points) != offsets:
        raise ValueError(f"{offsets} sampling offsets do not fit {heads} heads on {levels} levels")
    return points


def _rows(weights: State, key: str) -> int:
    return int(weights[key].shape[0])


def _has(weights: State, prefix: str) -> bool:
    return any(key.startswith(prefix) for key in weights)


def _count(weights: State, prefix: str) -> int:
    """Number of numbered modules below a prefix."""
    return len({key[len(prefix) :].split(".")[0] for key in weights if key.startswith(prefix)})
