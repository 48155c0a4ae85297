"""Uncertainty-minimal query selection (RT-DETR section 4.3) and the deformable decoder.

fdr_decoder.py refines distributions instead of boxes, and shares everything else.

Legend: B batch, Q queries, D denoising queries, C hidden_dim, K classes, N memory tokens.
Boxes are cxcywh; `boxes_logit` means before the sigmoid.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rtdetr_cli.config.model import DecoderConfig
from rtdetr_cli.core.structures import Distributions, ModelOutput, Prediction, Target
from rtdetr_cli.nn.deformable_attention import DeformableAttention
from rtdetr_cli.nn.denoising import (
    DenoisingConfig,
    DenoisingQueries,
    attention_between,
    make_denoising_queries,
)
from rtdetr_cli.nn.layers import (
    ACTIVATIONS,
    MLP,
    ConvNorm,
    ExactMLP,
    SelfAttention,
    constant_dtype,
)

CLASS_PRIOR = 0.01
"""Initial score of every class, whatever their number (RetinaNet, arXiv 1708.02002)."""
# Logit of a cell too close to the border to be an anchor: its sigmoid is exactly 1, as for the
# official infinity, and it is finite in float16.
OUTSIDE_LOGIT = 1e4


class Queries(NamedTuple):
    """What enters the decoder."""

    content: Tensor
    """(B, Q, C)."""
    boxes_logit: Tensor
    """(B, Q, 4)."""
    logits: Tensor
    """(B, Q, K) class logits of the selected cells."""


class Decoded(NamedTuple):
    """What a decoder layer gives."""

    content: Tensor
    """(B, Q, C)."""
    boxes: Tensor
    """(B, Q, 4), after refinement."""
    corners: Tensor | None = None
    """(B, Q, 4, R + 1) logits of the distributions of an FDR decoder."""


class QueryDecoder(nn.Module):
    """From the maps of the encoder to boxes and class logits; refinement is left to subclasses."""

    def __init__(
        self,
        config: DecoderConfig,
        num_classes: int,
        projections: list[nn.Module],
        layers: DecoderLayers,
    ) -> None:
        """Build all parts but the box heads.

        Args:
            config: widths and numbers of layers, heads and queries.
            num_classes: K.
            projections: from the width of the encoder to that of the decoder, one for each map.
            layers: the decoder layers.
        """
        super().__init__()
        width, activation = config.hidden_dim, ACTIVATIONS[config.activation]
        self.num_queries = config.num_queries
        self.eval_layers = config.eval_layers or config.num_layers
        self.anchor_precision = config.anchor_precision
        self.denoising = DenoisingConfig()
        self.input_proj = nn.ModuleList(projections)
        self.decoder = layers
        self.denoising_class_embed = nn.Embedding(num_classes + 1, width, padding_idx=num_classes)
        hidden = (2 * width,) if config.position_layers == 2 else (width, width)
        self.query_pos_head = MLP((4, *hidden, width), activation)
        self.enc_output: nn.Module = EncoderOutput(width)
        self.enc_score_head = nn.Linear(width, num_classes)
        self.enc_bbox_head = ExactMLP((width, width, width, 4), activation)
        self.dec_score_head = nn.ModuleList(
            nn.Linear(width, num_classes) for _ in range(config.num_layers)
        )

    def _init_parameters(self) -> None:
        for score_head in (self.enc_score_head, *self.dec_score_head):
            assert isinstance(score_head, nn.Linear)
            nn.init.constant_(score_head.bias, -math.log((1 - CLASS_PRIOR) / CLASS_PRIOR))
        for box_head in (m for m in self.modules() if isinstance(m, ExactMLP)):
            for parameter in box_head.layers[-1].parameters():
                nn.init.zeros_(parameter)
        for linear in (*self.enc_output.children(), *self.query_pos_head.layers):
            if isinstance(linear, nn.Linear):
                nn.init.xavier_uniform_(linear.weight)

    def forward(self, maps: list[Tensor], targets: list[Target] | None = None) -> ModelOutput:
        """Maps (B, C_in, H, W) to predictions; `targets` add denoising in training."""
        memory, sizes_hw = self.project(maps)
        queries = self.select_queries(memory, sizes_hw)
        if self.training:
            return self._train(queries, memory, sizes_hw, targets)
        last = self._infer(queries, memory, sizes_hw)[-1]
        return ModelOutput(*self.predict(self.eval_layers - 1, last))

    def at_every_depth(self, memory: Tensor, sizes_hw: list[tuple[int, int]]) -> list[Prediction]:
        """What `forward` outputs with 1, 2, ... `eval_layers` decoder layers (section 4.4).

        The layers of a shallower decoder are the first ones of a deeper decoder, each with its own
        heads, so one pass has the outputs of all. In eval mode only.
        """
        layers = self._infer(self.select_queries(memory, sizes_hw), memory, sizes_hw)
        return [self.predict(index, layer) for index, layer in enumerate(layers)]

    def predict(self, index: int, layer: Decoded) -> Prediction:
        """Class logits (B, Q, K) and boxes of a layer."""
        return Prediction(self.dec_score_head[index](layer.content), layer.boxes)

    def project(self, maps: list[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
        """Maps (B, C_in, H, W) to the memory (B, N, C), and the height and width of each."""
        projected = [project(x) for project, x in zip(self.input_proj, maps, strict=True)]
        sizes_hw = [(x.shape[-2], x.shape[-1]) for x in projected]
        return torch.cat([x.flatten(2).transpose(1, 2) for x in projected], dim=1), sizes_hw

    def select_queries(self, memory: Tensor, sizes_hw: list[tuple[int, int]]) -> Queries:
        """Select the cells with the best class score as queries (RT-DETR section 4.3).

        Equations 2 and 3 act through training: the varifocal loss makes a score high only where
        the box is good. Boxes are computed for the selected cells only.
        """
        anchors_logit, is_valid = make_anchors(sizes_hw, memory, self.anchor_precision)
        features = self.enc_output(memory * is_valid)  # (B, N, C)
        scores = self.enc_score_head(features)  # (B, N, K)
        count = min(self.num_queries, scores.shape[1])
        chosen = scores.amax(dim=-1).topk(count, dim=1).indices[..., None]  # (B, Q, 1)
        content = features.gather(1, chosen.expand(-1, -1, features.shape[-1]))
        logits = scores.gather(1, chosen.expand(-1, -1, scores.shape[-1]))
        anchors_logit = anchors_logit.expand(memory.shape[0], -1, -1)
        anchors_logit = anchors_logit.gather(1, chosen.expand(-1, -1, 4))
        return Queries(content, self.enc_bbox_head(content) + anchors_logit, logits)

    def _infer(
        self, queries: Queries, memory: Tensor, sizes_hw: list[tuple[int, int]]
    ) -> list[Decoded]:
        """The result of each of the layers in use."""
        raise NotImplementedError

    def _decode_all(
        self,
        content: Tensor,
        boxes: Tensor,
        memory: Tensor,
        sizes_hw: list[tuple[int, int]],
        allowed: Tensor | None,
    ) -> tuple[list[Prediction], Distributions | None]:
        """Every layer's prediction in training, from (B, D + Q, C) content and boxes."""
        raise NotImplementedError

    def _train(
        self,
        queries: Queries,
        memory: Tensor,
        sizes_hw: list[tuple[int, int]],
        targets: list[Target] | None,
    ) -> ModelOutput:
        noised = None
        if targets is not None:
            noised = make_denoising_queries(targets, self.denoising_class_embed, self.denoising)
        content, boxes = queries.content.detach(), queries.boxes_logit.detach()
        allowed = None
        if noised is not None:
            allowed = attention_between(noised.groups, content.shape[1], content.device)
            content = torch.cat((noised.content.to(content.dtype), content), dim=1)
            boxes = torch.cat((noised.boxes_logit.to(boxes.dtype), boxes), dim=1)
        decoded = self._decode_all(content, boxes.sigmoid(), memory, sizes_hw, allowed)
        encoder_output = Prediction(queries.logits, queries.boxes_logit.sigmoid())
        return _training_output(*decoded, encoder_output, noised)


class RTDETRDecoder(QueryDecoder):
    """Each layer moves the boxes of the one before in logit space."""

    def __init__(self, config: DecoderConfig, in_channels: int, num_classes: int) -> None:
        width = config.hidden_dim
        projections: list[nn.Module] = [ConvNorm((in_channels, width)) for _ in config.num_points]
        layers = DecoderLayers([DecoderLayer(config) for _ in range(config.num_layers)])
        super().__init__(config, num_classes, projections, layers)
        self.dec_bbox_head = box_heads(config, 4)
        self._init_parameters()

    def _infer(
        self, queries: Queries, memory: Tensor, sizes_hw: list[tuple[int, int]]
    ) -> list[Decoded]:
        """The result of each of the layers in use."""
        layers = []
        content, boxes = queries.content, queries.boxes_logit.sigmoid()
        for index in range(self.eval_layers):
            content = self._decode(index, content, boxes, memory, sizes_hw)
            boxes = refine(self.dec_bbox_head[index](content), boxes)
            layers.append(Decoded(content, boxes))
        return layers

    def _decode_all(
        self,
        content: Tensor,
        boxes: Tensor,
        memory: Tensor,
        sizes_hw: list[tuple[int, int]],
        allowed: Tensor | None,
    ) -> tuple[list[Prediction], Distributions | None]:
        """Every layer's prediction; gradients look forward twice (DINO section 3.5)."""
        predictions = []
        undetached = boxes
        for index, (score_head, box_head) in enumerate(
            zip(self.dec_score_head, self.dec_bbox_head, strict=True)
        ):
            reference = undetached.detach()
            content = self._decode(index, content, reference, memory, sizes_hw, allowed)
            delta = box_head(content)
            predictions.append(Prediction(score_head(content), refine(delta, undetached)))
            undetached = refine(delta, reference)
        return predictions, None

    def _decode(
        self,
        index: int,
        content: Tensor,
        boxes: Tensor,
        memory: Tensor,
        sizes_hw: list[tuple[int, int]],
        allowed: Tensor | None = None,
    ) -> Tensor:
        """One decoder layer: (B, Q, C) content around (B, Q, 4) boxes to (B, Q, C)."""
        position = self.query_pos_head(boxes.to(content.dtype))
        layer = self.decoder.layers[index]
        out: Tensor = layer(content, position, boxes, memory, sizes_hw, allowed)
        return out


def box_heads(config: DecoderConfig, num_outputs: int) -> nn.ModuleList:
    """A box head for each layer."""
    widths = (*[config.hidden_dim] * 3, num_outputs)
    activation = ACTIVATIONS[config.activation]
    return nn.ModuleList(ExactMLP(widths, activation) for _ in range(config.num_layers))


def _training_output(
    layers: list[Prediction],
    distributions: Distributions | None,
    encoder_output: Prediction,
    noised: DenoisingQueries | None,
) -> ModelOutput:
    """Split denoising queries from real ones and name the parts."""
    start = noised.groups.num_queries if noised else 0
    matched, denoising = slice(start, None), slice(start)
    real = [_part(layer, matched) for layer in layers]
    output = ModelOutput(*real[-1], aux_outputs=real[:-1], encoder_output=encoder_output)
    if noised:
        output.denoising_outputs = [_part(layer, denoising) for layer in layers]
        output.denoising_groups = noised.groups
    if distributions:
        output.distributions = _part_of_all(distributions, matched)
    if distributions and noised:
        output.denoising_distributions = _part_of_all(distributions, denoising)
    return output


def _part(prediction: Prediction, queries: slice) -> Prediction:
    return Prediction(prediction.logits[:, queries], prediction.boxes[:, queries])


def _part_of_all(distributions: Distributions, queries: slice) -> Distributions:
    return distributions._replace(
        corners=[corners[:, queries] for corners in distributions.corners],
        references=distributions.references[:, queries],
        initial=_part(distributions.initial, queries),
    )


def refine(delta: Tensor, boxes: Tensor) -> Tensor:
    """Move boxes (B, Q, 4) by a step in logit space, in float32 at least."""
    exact = torch.promote_types(boxes.dtype, torch.float32)
    return (delta.to(exact) + inverse_sigmoid(boxes.to(exact))).sigmoid()


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Logit of fractions, both sides clipped separately as in the official code."""
    x = x.clamp(0.0, 1.0)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def make_anchors(
    sizes_hw: list[tuple[int, int]], like: Tensor, precision: str = "float64"
) -> tuple[Tensor, Tensor]:
    """One square anchor per cell, 0.05 * 2^level of the image wide.

    Returns:
        (1, N, 4) anchors before the sigmoid, rounded to `precision`, float32 at least; and
        (1, N, 1) a mask in the dtype of `like`: 0 where a coordinate is outside (0.01, 0.99).
    """
    exact = constant_dtype(precision, like)
    levels = []
    for level, (height, width) in enumerate(sizes_hw):
        rows = (torch.arange(height, dtype=exact, device=like.device) + 0.5) / height
        columns = (torch.arange(width, dtype=exact, device=like.device) + 0.5) / width
        centre_y, centre_x = torch.meshgrid(rows, columns, indexing="ij")
        size = torch.full_like(centre_x, 0.05 * 2.0**level)
        levels.append(torch.stack((centre_x, centre_y, size, size), dim=-1).reshape(1, -1, 4))
    anchors = torch.cat(levels, dim=1)
    is_valid = ((anchors > 0.01) & (anchors < 0.99)).all(dim=-1, keepdim=True)
    anchors_logit = torch.log(anchors / (1 - anchors))
    anchors_logit = anchors_logit.where(is_valid, OUTSIDE_LOGIT)
    if precision == "float16":
        anchors_logit = anchors_logit.half().to(exact)
    return anchors_logit, is_valid.to(like.dtype)


class EncoderOutput(nn.Module):
    """Projection of the memory before query selection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, memory: Tensor) -> Tensor:
        """(B, N, C) to (B, N, C)."""
        out: Tensor = self.norm(self.proj(memory))
        return out


class DecoderLayers(nn.Module):
    """The stack of decoder layers."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class DecoderLayer(nn.Module):
    """Self-attention, deformable cross-attention, feed-forward network; post-norm."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width = config.hidden_dim
        self.self_attn = SelfAttention(width, config.num_heads)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn = DeformableAttention(config)
        self.norm2 = nn.LayerNorm(width)
        self.activation = ACTIVATIONS[config.activation]
        self.linear1 = nn.Linear(width, config.ffn_dim)
        self.linear2 = nn.Linear(config.ffn_dim, width)
        self.norm3 = nn.LayerNorm(width)

    def forward(
        self,
        content: Tensor,
        position: Tensor,
        boxes: Tensor,
        memory: Tensor,
        sizes_hw: list[tuple[int, int]],
        allowed: Tensor | None,
    ) -> Tensor:
        """(B, Q, C) content to (B, Q, C); position (B, Q, C), boxes (B, Q, 4), memory (B, N, C)."""
        content = self.norm1(content + self.self_attn(content, position, allowed))
        sampled = self.cross_attn(content + position, boxes, memory, sizes_hw)
        content = self.norm2(content + sampled)
        out: Tensor = self.norm3(content + self.linear2(self.activation(self.linear1(content))))
        return out
