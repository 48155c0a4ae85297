"""Whether an architecture is as small as the weights that came with it: asked before it is built.

A file of a kilobyte can say that its convolutions have 10^9 channels; a network made after it would
fill the memory. The counts below leave out biases and norms, so that no good file is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

from rtdetr_cli.config.model import (
    DecoderConfig,
    EncoderConfig,
    HGNetv2Config,
    HGStage,
    ModelConfig,
    PResNetConfig,
)
from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.weights.checkpoint import Checkpoint

Amount = tuple[int, float]
"""How many weight tensors and how many values in them."""


def check_scale(checkpoint: Checkpoint, origin: str) -> None:
    """Make sure that the network of a checkpoint is no larger than its weights.

    Raises:
        WeightsError: it would have more tensors or more values, or a weight has none.
    """
    empty = next((name for name, t in checkpoint.weights.items() if not t.numel()), None)
    if empty is not None:
        raise WeightsError(f"{origin} is damaged: {empty} has no values")
    tensors, values = least_amount(checkpoint.config, len(checkpoint.names))
    stored = sum(tensor.numel() for tensor in checkpoint.weights.values())
    if tensors > len(checkpoint.weights) or values > stored:
        raise WeightsError(
            f"{origin} does not fit: its architecture is larger than its {stored} weights"
        )


def least_amount(config: ModelConfig, num_classes: int) -> Amount:
    """What the convolutions and linear layers of a network hold."""
    if isinstance(config.backbone, HGNetv2Config):
        maps = [stage.out for stage in config.backbone.stages]
        parts = [*_hgnetv2(config.backbone)]
    else:
        maps = [
            width * (4 if config.backbone.bottleneck else 1) for width in config.backbone.widths
        ]
        parts = [*_presnet(config.backbone)]
    parts.append((3, sum(maps[-3:]) * config.encoder.hidden_dim))
    parts.append(_encoder(config.encoder))
    parts.append(_decoder(config.decoder, config.encoder.hidden_dim, num_classes))
    return sum(count for count, _ in parts), sum(values for _, values in parts)


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


def _encoder(config: EncoderConfig) -> Amount:
    """AIFI and CCFF."""
    width, mid = config.hidden_dim, config.hidden_dim * min(config.expansion, 2**32) - 1
    layer = 4 * width * width + 2 * width * config.ffn_dim
    fusion = 4 * width * mid + config.num_csp_blocks * 10 * mid * mid
    tensors = 4 * config.num_layers + 8 * config.num_csp_blocks
    return tensors, config.num_layers * layer + 4 * fusion + 20 * width * width


def _decoder(config: DecoderConfig, in_channels: int, num_classes: int) -> Amount:
    width, points = config.hidden_dim, 3 * config.num_heads * sum(config.num_points)
    layer = width * (6 * width + points + 2 * config.ffn_dim)
    heads = (config.num_layers + 1) * width * (num_classes + 2 * width)
    rest = 3 * in_channels * width + width * (8 + 3 * width) + num_classes * width
    return 10 * config.num_layers, config.num_layers * layer + heads + rest
