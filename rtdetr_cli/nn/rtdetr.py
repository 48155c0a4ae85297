"""RT-DETR (arXiv 2304.08069, figure 4): backbone, hybrid encoder, decoder. THE FORWARD PASS.

Legend: B batch, Q queries, K classes, H W height and width of the images.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from rtdetr_cli.config.model import (
    DecoderConfig,
    DEIMv2DecoderConfig,
    EncoderConfig,
    FDRDecoderConfig,
    LiteEncoderConfig,
    ModelConfig,
)
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.core.structures import ModelOutput, Target
from rtdetr_cli.nn.backbones import build_backbone
from rtdetr_cli.nn.decoder import QueryDecoder, RTDETRDecoder
from rtdetr_cli.nn.deimv2_decoder import DEIMv2Decoder
from rtdetr_cli.nn.fdr_decoder import FDRDecoder
from rtdetr_cli.nn.hybrid_encoder import HybridEncoder
from rtdetr_cli.nn.lite_encoder import LiteEncoder


class RTDETRNetwork(nn.Module):
    """The network of one architecture file; state-dict names equal the official v2 ones."""

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.backbone = build_backbone(config.backbone)
        self.encoder = build_encoder(config.encoder, self.backbone.out_channels)
        self.decoder = build_decoder(config.decoder, config.encoder.hidden_dim, num_classes)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = config.norm_eps

    def forward(self, images: Tensor, targets: list[Target] | None = None) -> ModelOutput:
        """Detect.

        Args:
            images: (B, 3, H, W) RGB in 0..1; H and W multiples of 32.
            targets: ground truth for denoising, in training mode only.

        Returns:
            Predictions of the last decoder layer in use, queries in the order of selection; in
            training mode also those of the other layers, the encoder and the denoising queries.
        """
        maps = self.backbone(images)
        maps = self.encoder(maps)
        output: ModelOutput = self.decoder(maps, targets)
        return output

    def set_speed(self, decoder_layers: int | None = None, num_queries: int | None = None) -> None:
        """Run fewer decoder layers or queries at inference, without retraining (section 4.4).

        Args:
            decoder_layers: 1 up to the number of trained layers; None leaves it.
            num_queries: 1 or more; None leaves it.

        Raises:
            UsageError: the network has fewer layers.
        """
        trained = self.config.decoder.num_layers
        if decoder_layers is not None:
            if not 1 <= decoder_layers <= trained:
                raise UsageError(
                    f"decoder_layers={decoder_layers}: {self.config.name} has {trained} decoder "
                    f"layers, so 1 to {trained} are possible"
                )
            self.decoder.eval_layers = decoder_layers
        if num_queries is not None:
            self.decoder.num_queries = num_queries


def build_encoder(
    config: EncoderConfig | LiteEncoderConfig, in_channels: tuple[int, ...]
) -> HybridEncoder | LiteEncoder:
    """The encoder that an `encoder:` section describes."""
    if isinstance(config, LiteEncoderConfig):
        return LiteEncoder(config, in_channels)
    return HybridEncoder(config, in_channels)


def build_decoder(config: DecoderConfig, in_channels: int, num_classes: int) -> QueryDecoder:
    """The decoder that a `decoder:` section describes."""
    if isinstance(config, DEIMv2DecoderConfig):
        return DEIMv2Decoder(config, in_channels, num_classes)
    if isinstance(config, FDRDecoderConfig):
        return FDRDecoder(config, in_channels, num_classes)
    return RTDETRDecoder(config, in_channels, num_classes)


def fuse(network: RTDETRNetwork) -> RTDETRNetwork:
    """A copy for inference: norms folded into convolutions, RepVGG blocks merged into one.

    Args:
        network: in eval mode; not changed.

    Returns:
        A network with the same outputs to rounding, which cannot be trained further.
    """
    cheaper = {id(module): module.fused() for module in _fusable(network)}
    fused = copy.deepcopy(network, cheaper)  # takes them as the copies of these modules
    return fused.eval().requires_grad_(False)


@runtime_checkable
class Fusable(Protocol):
    """A module that can be replaced by a cheaper one with the same outputs in eval mode."""

    def fused(self) -> nn.Module:
        """The cheaper module."""
        ...


def _fusable(module: nn.Module) -> Iterator[Fusable]:
    """The outermost modules that can be replaced."""
    for child in module.children():
        if isinstance(child, Fusable):
            yield child
        else:
            yield from _fusable(child)
