"""The network as exported: the same function with fewer operators.

Built from a trained network: consecutive linear maps are multiplied in float64. decoder.py and
fdr_decoder.py have the decoders, graph.py adds the post-processing.

Legend: B batch, Q queries, C hidden_dim, K classes, M heads, D = C / M, H W height and width of a
map, N tokens. Tokens are rows of one matrix, (B * N, C), so that a Linear is one node (Gemm)
instead of two.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rtdetr_cli.backends.onnx.decoder import (
    DeployedDecoder,
    attend,
    make_linear,
    only,
    scaled_in_projection,
)
from rtdetr_cli.backends.onnx.fdr_decoder import DeployedFDRDecoder
from rtdetr_cli.core.structures import ModelOutput
from rtdetr_cli.nn.decoder import QueryDecoder, RTDETRDecoder
from rtdetr_cli.nn.fdr_decoder import FDRDecoder
from rtdetr_cli.nn.hybrid_encoder import AIFI, EncoderLayer, HybridEncoder, position_embedding
from rtdetr_cli.nn.rtdetr import RTDETRNetwork, fuse


class DeployedNetwork(nn.Module):
    """A trained network with its current decoder layers and queries, for inference only."""

    def __init__(
        self,
        network: RTDETRNetwork,
        size_hw: tuple[int, int] | None,
        sampler: str = "grid_sample",
    ) -> None:
        """Build the deployed form; `network` is not changed.

        Args:
            network: in eval mode.
            size_hw: height and width of the images, None if free.
            sampler: `grid_sample` or `gather`; no effect on networks with discrete sampling.
        """
        super().__init__()
        fused = fuse(network)
        self.backbone = fused.backbone
        self.encoder = fused.encoder
        if isinstance(self.encoder, HybridEncoder):
            self.encoder.encoder[0] = DeployedAIFI(only(AIFI, fused.encoder)[0])
        self.decoder = _deploy(fused.decoder, network.config.strides, size_hw, sampler)

    def forward(self, images: Tensor) -> ModelOutput:
        """(B, 3, H, W) RGB in 0..1 to logits (B, Q, K) and boxes (B, Q, 4) cxcywh."""
        output: ModelOutput = self.decoder(self.encoder(self.backbone(images)))
        return output


def _deploy(
    decoder: QueryDecoder, strides: tuple[int, ...], size_hw: tuple[int, int] | None, sampler: str
) -> DeployedDecoder | DeployedFDRDecoder:
    if isinstance(decoder, FDRDecoder):
        return DeployedFDRDecoder(decoder, strides, size_hw, sampler)
    assert isinstance(decoder, RTDETRDecoder)
    return DeployedDecoder(decoder, strides, size_hw, sampler)


class DeployedAIFI(nn.Module):
    """Attention on S5 with one projection for query, key and value.

    The projected position embedding is added afterwards; for a fixed size it is a constant.
    """

    def __init__(self, aifi: AIFI) -> None:
        super().__init__()
        self.position_precision = aifi.position_precision
        self.layers = nn.ModuleList(map(DeployedEncoderLayer, only(EncoderLayer, aifi.layers)))

    def forward(self, s5: Tensor) -> Tensor:
        """(B, C, H, W) to F5 (B, C, H, W)."""
        channels, height, width = s5.shape[1:]
        tokens = s5.flatten(2).transpose(1, 2).reshape(-1, channels)  # (B * N, C)
        position = position_embedding(s5, self.position_precision)[0]  # (N, C)
        for layer in self.layers:
            tokens = layer(tokens, position)
        return tokens.reshape(-1, height * width, channels).transpose(1, 2).reshape(s5.shape)


class DeployedEncoderLayer(nn.Module):
    """Post-norm transformer layer on rows of tokens."""

    def __init__(self, layer: EncoderLayer) -> None:
        super().__init__()
        attention = layer.self_attn
        self.num_heads = attention.num_heads
        weight, bias = scaled_in_projection(attention)
        width = weight.shape[1]
        like = attention.in_proj_weight
        self.in_proj = make_linear(weight, None, like)
        # The position is added to query and key only.
        self.position_proj = make_linear(weight, bias, like)
        self.position_proj.weight.data[2 * width :] = 0
        self.out_proj = attention.out_proj
        self.norm1, self.norm2 = layer.norm1, layer.norm2
        self.linear1, self.linear2 = layer.linear1, layer.linear2

    def forward(self, tokens: Tensor, position: Tensor) -> Tensor:
        """(B * N, C) tokens and (N, C) position to (B * N, C)."""
        parts = 3 * self.num_heads
        added = self.position_proj(position).unflatten(-1, (parts, -1))  # (N, 3M, D)
        mixed = self.in_proj(tokens).reshape(-1, *added.shape) + added  # (B, N, 3M, D)
        query, key, value = mixed.transpose(1, 2).chunk(3, dim=1)
        tokens = self.norm1(tokens + self.out_proj(attend(query, key, value)))
        out: Tensor = self.norm2(tokens + self.linear2(gelu(self.linear1(tokens))))
        return out


def gelu(x: Tensor) -> Tensor:
    """GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415, section 2) as x (1 + erf(x / sqrt 2)) / 2.

    For torch's own the exporter writes x (0.5 (1 + erf)), which ends OpenCV's importer with a
    segmentation fault and which ONNX Runtime does not recognise as GELU.
    """
    return x * (1 + torch.erf(x / math.sqrt(2))) * 0.5
