"""Estimate the size of a network from its architecture, before it is built.

A small file can declare 10^9 channels, and building the network would exhaust the memory. The
estimates omit biases and norms, so that no valid file is rejected.
"""

from __future__ import annotations

from collections.abc import Iterator

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
from rtdetr_cli.core.errors import ConfigError

MAX_PARAMETERS = 10**9
"""RT-DETR-H, the largest published model, has 126 million."""
MAX_TENSORS = 10_000
"""Weights of convolutions and linear layers; RT-DETR-H has 212."""
MAX_ACTIVATIONS = 2**33
"""Values in the feature maps of the largest block for one image, 32 GiB as float32; RT-DETR-H has
25 million at 640 pixels and 4.0 billion at 8192."""

Amount = tuple[int, float]
"""Number of weight tensors and of values in them."""


def check_architecture(config: ModelConfig, origin: str) -> None:
    """Check that a network is not implausibly large, at 640 pixels and 80 classes.

    Raises:
        ConfigError: a part is too large.
    """
    parts = _parts(config, 80)
    for limit, index, noun in ((MAX_TENSORS, 0, "layers"), (MAX_PARAMETERS, 1, "parameters")):
        total = sum(amount[index] for amount in parts.values())
        if not total <= limit:
            largest = max(parts, key=lambda part: parts[part][index])
            raise ConfigError(
                f"{origin}: {largest} makes this a network of {total:.3g} {noun}; "
                f"the limit is {limit}"
            )
    check_activations(config, (640, 640), origin)


def check_activations(config: ModelConfig, size_hw: tuple[int, int], origin: str) -> None:
    """Check the memory of the activations for one image of a given size.

    Raises:
        ConfigError: a part is too large.
    """
    activations = largest_activations(config, size_hw)
    largest = max(activations, key=lambda part: activations[part])
    if not activations[largest] <= MAX_ACTIVATIONS:
        height, width = size_hw
        raise ConfigError(
            f"{origin}: at {height}x{width} pixels {largest} has {activations[largest]:.3g} values "
            f"for one image; the limit is {MAX_ACTIVATIONS}"
        )


def largest_activations(config: ModelConfig, size_hw: tuple[int, int]) -> dict[str, int]:
    """Number of values in the feature maps of the largest block of each part, for one image."""
    backbone, encoder, decoder = config.backbone, config.encoder, config.decoder
    pixels = size_hw[0] * size_hw[1]
    outs = backbone.map_widths
    if isinstance(backbone, HGNetv2Config):
        stem, entering = 2 * backbone.stem[0], [backbone.stem[1], *outs]
        widths = [
            max(width, stage.out) + stage.layers * stage.mid + stage.out
            for width, stage in zip(entering, backbone.stages, strict=False)
        ]
    else:
        stem, widths = max(backbone.stem), [3 * out for out in outs]
    maps = [pixels // 4 * stem]
    maps += [pixels // 16 // 4**index * width for index, width in enumerate(widths)]
    tokens = sum(pixels // stride**2 for stride in config.strides)
    finest, coarsest = (pixels // config.strides[level] ** 2 for level in (0, -1))
    ffn_dim = encoder.ffn_dim if isinstance(encoder, EncoderConfig) else 0
    queries = min(decoder.num_queries, tokens)
    samples = queries * sum(decoder.num_points) * decoder.hidden_dim
    return {
        "backbone": max(maps),
        "encoder": finest * 3 * (encoder.hidden_dim + encoder.fusion_width),
        "encoder.ffn_dim": coarsest * ffn_dim,
        "decoder": max(tokens * decoder.hidden_dim, queries**2 * decoder.num_heads, samples),
        "decoder.ffn_dim": queries * decoder.ffn_dim,
    }


def least_amount(config: ModelConfig, num_classes: int) -> Amount:
    """Count the weights of the convolutions and linear layers of a network."""
    parts = _parts(config, num_classes).values()
    return sum(count for count, _ in parts), sum(values for _, values in parts)


def _parts(config: ModelConfig, num_classes: int) -> dict[str, Amount]:
    backbone, width = config.backbone, config.encoder.hidden_dim
    layers = [*_backbone(backbone)]
    return {
        "backbone": (sum(count for count, _ in layers), sum(amount for _, amount in layers)),
        "encoder": _encoder(config.encoder, backbone.map_widths[-backbone.num_maps :]),
        "decoder": _decoder(config.decoder, width, num_classes),
    }


def _backbone(config: HGNetv2Config | PResNetConfig) -> Iterator[Amount]:
    return _hgnetv2(config) if isinstance(config, HGNetv2Config) else _presnet(config)


def _hgnetv2(config: HGNetv2Config) -> Iterator[Amount]:
    mid, width = config.stem
    yield 5, 27 * mid + 2 * 4 * mid * (mid // 2) + 18 * mid * mid + mid * width
    for stage in config.stages:
        convolutions = stage.layers + 2
        yield convolutions, _hg_block(stage, width)
        yield (stage.blocks - 1) * convolutions, (stage.blocks - 1) * _hg_block(stage, stage.out)
        width = stage.out


def _hg_block(stage: HGStage, width: int) -> int:
    area, mid, squeezed = stage.kernel**2, stage.mid, stage.out // 2
    layers = width * mid + (stage.layers - 1) * mid * mid
    layers = layers + stage.layers * mid * area if stage.light else layers * area
    return layers + (width + stage.layers * mid) * squeezed + squeezed * stage.out


def _presnet(config: PResNetConfig) -> Iterator[Amount]:
    first, second, width = config.stem
    yield 3, 9 * (3 * first + first * second + second * width)
    for mid, blocks in zip(config.widths, config.blocks, strict=True):
        out = 4 * mid if config.bottleneck else mid
        inner = mid * (9 * mid + out) if config.bottleneck else 9 * mid * mid
        enter = mid if config.bottleneck else 9 * mid
        yield 3, width * (enter + out) + inner
        yield 2 * (blocks - 1), (blocks - 1) * (out * enter + inner)
        width = out


def _encoder(config: EncoderConfig | LiteEncoderConfig, widths_in: tuple[int, ...]) -> Amount:
    width = config.hidden_dim
    tensors, values = _fusion_block(config)
    if isinstance(config, LiteEncoderConfig):
        return 4 + 2 * tensors, (widths_in[0] + 3 * width) * width + 2 * values
    steps = len(widths_in) - 1
    layer = 4 * width * width + 2 * width * config.ffn_dim
    step = width * width * (10 if config.fusion == "csp" else 2) + 2 * values
    projected = sum(width_in for width_in in widths_in if width_in != width) * width
    tensors = len(widths_in) + 4 * config.num_layers + 2 * steps * tensors
    return tensors, config.num_layers * layer + steps * step + projected


def _fusion_block(config: EncoderConfig | LiteEncoderConfig) -> Amount:
    """A CSP layer, or the two CSP layers and four convolutions of an ELAN block."""
    width, inner, blocks = config.hidden_dim, config.fusion_width, config.num_csp_blocks
    repeated = 10 * blocks * inner * inner
    if isinstance(config, EncoderConfig) and config.fusion == "csp":
        return 2 * blocks, 4 * width * inner + repeated
    adds = isinstance(config, LiteEncoderConfig) or config.fusion == "elan_sum"
    ends = (4 if adds else 6) * width * width + 2 * inner * width
    return 4 + 4 * blocks, ends + 2 * (width + inner) * inner + 2 * (9 * inner * inner + repeated)


def _decoder(config: DecoderConfig, in_channels: int, num_classes: int) -> Amount:
    width, is_refined = config.hidden_dim, isinstance(config, FDRDecoderConfig)
    has_one_box_head = isinstance(config, DEIMv2DecoderConfig) and config.shared_box_head
    box_heads = 1 + (1 if has_one_box_head else config.num_layers)
    heads = width * ((config.num_layers + 2) * num_classes + box_heads * 2 * width)
    projected = 0 if is_refined and in_channels == width else in_channels * width
    rest = len(config.num_points) * projected + width * (4 + 2 * width)
    return 10 * config.num_layers, config.num_layers * _decoder_layer(config) + heads + rest


def _decoder_layer(config: DecoderConfig) -> int:
    """Self-attention, sampling, and what follows it: projections of the values, or a gate."""
    width, feed_forward = config.hidden_dim, 2 * config.ffn_dim
    sampling, gate = 3 * config.num_heads * sum(config.num_points), 2 * width
    if isinstance(config, FDRDecoderConfig):
        gate = 4 * width
    if isinstance(config, DEIMv2DecoderConfig):
        gate = 4 * width if config.gateway else 0
        feed_forward = 3 * (config.ffn_dim // 2)  # SwiGLU
    return width * (4 * width + sampling + gate + feed_forward)
