"""The decoder of D-FINE (arXiv 2410.13842), DEIM-D-FINE and RT-DETRv4.

Query selection and denoising are those of decoder.py. The first layer predicts a box; it and all
layers behind it refine the distributions of how far its edges are off.

Legend: B batch, Q queries, D denoising queries, C hidden_dim, N memory tokens, R + 1 bins.
Boxes are cxcywh; those of distributions may leave 0..1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtdetr_cli.config.model import FDRDecoderConfig
from rtdetr_cli.core.distribution import bin_values, boxes_from_distances
from rtdetr_cli.core.structures import Distributions, Prediction
from rtdetr_cli.nn.decoder import (
    Decoded,
    DecoderLayers,
    Queries,
    QueryDecoder,
    box_heads,
    refine,
)
from rtdetr_cli.nn.deformable_attention import DeformableSampling, split_maps
from rtdetr_cli.nn.distribution import Gate, LocationQuality, expected_distances
from rtdetr_cli.nn.layers import ACTIVATIONS, ConvNorm, ExactMLP, SelfAttention

POSITION_LIMIT = 10.0
"""Bound of the position embedding of queries (official D-FINE)."""
_HALF_LIMIT = 65504.0
"""The largest float16."""


class FDRDecoder(QueryDecoder):
    """Each layer adds to the distributions of the one before."""

    decoder: FDRLayers

    def __init__(
        self,
        config: FDRDecoderConfig,
        in_channels: int,
        num_classes: int,
        layers: list[nn.Module] | None = None,
    ) -> None:
        """Build the decoder.

        Args:
            config: widths and numbers of layers, heads, queries and bins.
            in_channels: width of the encoder.
            num_classes: K.
            layers: decoder layers, by default those of D-FINE.
        """
        width, activation = config.hidden_dim, ACTIVATIONS[config.activation]
        # As in the official networks, maps that are wide enough enter as they are.
        projections: list[nn.Module] = [
            nn.Identity() if in_channels == width else ConvNorm((in_channels, width))
            for _ in config.num_points
        ]
        layers = layers or [FDRLayer(config) for _ in range(config.num_layers)]
        super().__init__(config, num_classes, projections, FDRLayers(config, layers))
        self.num_heads = config.num_heads
        self.reg_max, self.reg_scale = config.reg_max, config.reg_scale
        self.pre_bbox_head = ExactMLP((width, width, width, 4), activation)
        self.dec_bbox_head = box_heads(config, 4 * (config.reg_max + 1))
        self._init_parameters()

    def corners(self, index: int, content: Tensor) -> Tensor:
        """What a layer adds to the logits of the bins: (B, Q, C) to (B, Q, 4, R + 1)."""
        head = self.dec_bbox_head[min(index, len(self.dec_bbox_head) - 1)]
        added: Tensor = head(content).unflatten(-1, (4, -1))
        return added

    def position(self, boxes: Tensor, earlier: Tensor | None) -> Tensor:
        """Position embedding (B, Q, C) of (B, Q, 4) boxes; `earlier` is that of the last layer."""
        del earlier
        embedded: Tensor = self.query_pos_head(boxes)
        return embedded.clamp(-POSITION_LIMIT, POSITION_LIMIT)

    def _infer(
        self, queries: Queries, memory: Tensor, sizes_hw: list[tuple[int, int]]
    ) -> list[Decoded]:
        maps = split_maps(memory, sizes_hw, self.num_heads)
        return self.decode(queries.content, queries.boxes_logit.sigmoid(), (maps, None))[0]

    def _decode_all(
        self,
        content: Tensor,
        boxes: Tensor,
        memory: Tensor,
        sizes_hw: list[tuple[int, int]],
        allowed: Tensor | None,
    ) -> tuple[list[Prediction], Distributions | None]:
        maps = split_maps(memory, sizes_hw, self.num_heads)
        layers, initial = self.decode(content, boxes, (maps, allowed))
        distributions = Distributions(
            corners=[layer.corners for layer in layers if layer.corners is not None],
            references=initial.detach(),
            initial=Prediction(self.dec_score_head[0](layers[0].content), initial),
            scale=self.reg_scale,
        )
        return [self.predict(index, layer) for index, layer in enumerate(layers)], distributions

    def predict(self, index: int, layer: Decoded) -> Prediction:
        """Class logits with the quality of the boxes, and boxes."""
        logits, boxes = super().predict(index, layer)
        return Prediction(self.decoder.lqe_layers[index](logits, layer.corners), boxes)

    def decode(
        self, content: Tensor, boxes: Tensor, context: tuple[object, ...]
    ) -> tuple[list[Decoded], Tensor]:
        """The result of each layer, and the ordinary boxes (B, Q, 4) of the first one.

        Any number of axes before the last one will do, if the layers agree (backends/onnx);
        `context` are their further arguments. Gradients pass from layer to layer through content
        and corners, not through boxes.
        """
        bins = bin_values(self.reg_max, self.reg_scale, boxes)
        initial, corners, position, before = boxes, None, None, None
        decoded = []
        for index in range(len(self.decoder.layers) if self.training else self.eval_layers):
            position = self.position(boxes.to(content.dtype), position)
            content = self.decoder.layers[index](content, position, boxes, *context)
            if corners is None or before is None:
                initial = refine(self.pre_bbox_head(content), boxes)
                corners = self.corners(index, content)
            else:
                corners = corners + self.corners(index, content + before)
            before = content.detach()
            distances = expected_distances(corners, bins)
            refined = boxes_from_distances(initial.detach(), distances, self.reg_scale)
            decoded.append(Decoded(content, refined, corners))
            boxes = refined.detach()
        return decoded, initial


class FDRLayers(DecoderLayers):
    """The stack of decoder layers, and the quality estimate of each."""

    def __init__(self, config: FDRDecoderConfig, layers: list[nn.Module]) -> None:
        super().__init__(layers)
        activation = ACTIVATIONS[config.activation]
        self.lqe_layers = nn.ModuleList(LocationQuality(activation) for _ in layers)


class FDRAttention(nn.Module):
    """A decoder layer up to its deformable sampling, post-norm; what follows is in subclasses."""

    def __init__(self, config: FDRDecoderConfig, norm: nn.Module) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config.hidden_dim, config.num_heads)
        self.norm1 = norm
        self.cross_attn = DeformableSampling(config)

    def forward(
        self,
        content: Tensor,
        position: Tensor,
        boxes: Tensor,
        maps: list[Tensor],
        allowed: Tensor | None,
    ) -> Tensor:
        """(B, Q, C) content and position, (B, Q, 4) boxes, (B * M, D, H, W) maps, to (B, Q, C)."""
        content = self.norm1(content + self.self_attn(content, position, allowed))
        return self.finish(content, self.cross_attn.attend(content + position, boxes, maps))

    def finish(self, content: Tensor, sampled: Tensor) -> Tensor:
        """What follows the attentions: (..., C) content and sampled to (..., C)."""
        raise NotImplementedError


class FDRLayer(FDRAttention):
    """Self-attention, deformable sampling behind a gate, feed-forward network; post-norm."""

    def __init__(self, config: FDRDecoderConfig) -> None:
        width = config.hidden_dim
        super().__init__(config, nn.LayerNorm(width))
        self.gateway = Gate(width, nn.LayerNorm(width))
        self.activation = ACTIVATIONS[config.activation]
        self.linear1 = nn.Linear(width, config.ffn_dim)
        self.linear2 = nn.Linear(config.ffn_dim, width)
        self.norm3 = nn.LayerNorm(width)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def finish(self, content: Tensor, sampled: Tensor) -> Tensor:
        """The gate and the feed-forward network: (..., C) content and sampled to (..., C)."""
        content = self.gateway(content, sampled)
        out: Tensor = self.norm3(add(content, self.linear2(self.activation(self.linear1(content)))))
        return out


def add(content: Tensor, change: Tensor) -> Tensor:
    """The sum of two (B, Q, C), finite also where float16 overflows (D-FINE issue 133)."""
    total = content + change
    return total.clamp(-_HALF_LIMIT, _HALF_LIMIT) if change.dtype == torch.float16 else total
