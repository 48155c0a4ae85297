"""Infer the architecture of a state dict: widths, depths and kernels from its tensor shapes.

Properties that shapes do not determine (recipe, decoder layers in use) come from the file itself
(`Facts`), else from the shipped architecture with the same shapes, if there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from torch import Tensor

from rtdetr_cli.config.fields import FieldError
from rtdetr_cli.config.load import (
    load_model_config,
    model_config_from_dict,
    model_config_to_dict,
)
from rtdetr_cli.config.model import (
    DecoderConfig,
    EncoderConfig,
    HGNetv2Config,
    HGStage,
    ModelConfig,
    PResNetConfig,
)
from rtdetr_cli.core.errors import ConfigError, WeightsError
from rtdetr_cli.core.files import asset_dir

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
    twin = next(
        (shipped for shipped in shipped_configs() if _shapes(shipped) == _shapes(found)), None
    )
    if twin is None:
        return found
    depth = facts.eval_layers or twin.decoder.eval_layers
    return replace(
        found,
        name=twin.name,
        recipe=twin.recipe,
        decoder=replace(found.decoder, eval_layers=depth),
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
    encoder = config.encoder
    if isinstance(encoder, EncoderConfig):
        encoder = replace(encoder, position_precision="float32")
    decoder = replace(
        config.decoder,
        num_queries=1,
        eval_layers=None,
        sampling="bilinear",
        anchor_precision="float32",
    )
    return config.backbone, encoder, decoder


def _backbone(weights: State) -> HGNetv2Config | PResNetConfig:
    return _hgnetv2(weights) if _has(weights, "backbone.stem.") else _presnet(weights)


def _hgnetv2(weights: State) -> HGNetv2Config:
    stem = "backbone.stem.stem{}.conv.weight"
    stages = tuple(_stage(weights, f"backbone.stages.{index}.") for index in range(4))
    return HGNetv2Config((_rows(weights, stem.format(1)), _rows(weights, stem.format(4))), stages)


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


def _encoder(weights: State, facts: Facts) -> EncoderConfig:
    hidden_dim = _rows(weights, "encoder.input_proj.0.conv.weight")
    return EncoderConfig(
        hidden_dim=hidden_dim,
        ffn_dim=_rows(weights, "encoder.encoder.0.layers.0.linear1.weight"),
        num_layers=_count(weights, "encoder.encoder.0.layers."),
        num_heads=facts.encoder_heads or EncoderConfig.num_heads,
        num_csp_blocks=_count(weights, "encoder.fpn_blocks.0.bottlenecks."),
        expansion=_rows(weights, "encoder.fpn_blocks.0.conv1.conv.weight") / hidden_dim,
        position_precision=facts.position_precision or EncoderConfig.position_precision,
    )


def _decoder(weights: State, facts: Facts) -> DecoderConfig:
    heads = facts.num_heads or DecoderConfig.num_heads
    offsets = _rows(weights, "decoder.decoder.layers.0.cross_attn.sampling_offsets.weight")
    points = facts.num_points or (offsets // (2 * heads * 3),) * 3
    if len(points) != 3 or 2 * heads * sum(points) != offsets:
        raise ValueError(f"{offsets} sampling offsets do not fit {heads} heads on three levels")
    return DecoderConfig(
        hidden_dim=_rows(weights, "decoder.input_proj.0.conv.weight"),
        ffn_dim=_rows(weights, "decoder.decoder.layers.0.linear1.weight"),
        num_layers=_count(weights, "decoder.dec_score_head."),
        num_heads=heads,
        num_queries=facts.num_queries or DecoderConfig.num_queries,
        num_points=(points[0], points[1], points[2]),
        eval_layers=facts.eval_layers,
        sampling=facts.sampling or DecoderConfig.sampling,
        anchor_precision=facts.anchor_precision or DecoderConfig.anchor_precision,
    )


def _rows(weights: State, key: str) -> int:
    return int(weights[key].shape[0])


def _has(weights: State, prefix: str) -> bool:
    return any(key.startswith(prefix) for key in weights)


def _count(weights: State, prefix: str) -> int:
    """Number of numbered modules below a prefix."""
    return len({key[len(prefix) :].split(".")[0] for key in weights if key.startswith(prefix)})
