"""The decoder as exported (network.py): the same function with fewer operators.

Consecutive linear maps are multiplied in float64, and boxes are kept as logits. sampling.py
implements deformable sampling, fdr_decoder.py refines distributions.

Legend: B batch, Q queries, C hidden_dim, K classes, M heads, D = C / M, P points of all levels,
H W height and width of a map, N tokens. Queries are rows of one matrix, (B * Q, C), so that a
Linear is one node (Gemm) instead of two.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtdetr_cli.backends.onnx.sampling import make_sampler, take_rows
from rtdetr_cli.core.structures import ModelOutput
from rtdetr_cli.nn.decoder import (
    DecoderLayer,
    EncoderOutput,
    QueryDecoder,
    RTDETRDecoder,
    make_anchors,
)
from rtdetr_cli.nn.deformable_attention import DeformableSampling
from rtdetr_cli.nn.layers import SelfAttention

BOX_LOGIT_LIMIT = -math.log(1e-5)
"""Inverse sigmoid of a coordinate at the border of the image, with the eps of nn/decoder.py."""
FEWEST_CELLS = 5
"""Cells of an image of 32x32 on two maps: one of stride 32, 4 of stride 16; 16 more of stride 8."""
_MARGIN = 0.01
"""Anchors closer to the border are invalid (nn/decoder.py)."""
M = TypeVar("M", bound=nn.Module)


class DeployedDecoder(nn.Module):
    """Query selection and the active decoder layers, with only the last score head."""

    def __init__(
        self,
        decoder: RTDETRDecoder,
        strides: tuple[int, ...],
        size_hw: tuple[int, int] | None,
        sampler: str,
    ) -> None:
        super().__init__()
        count = decoder.eval_layers
        self.selection = QuerySelection(decoder, strides, size_hw)
        self.query_pos_head = decoder.query_pos_head
        self.layers = nn.ModuleList(
            DeployedDecoderLayer(layer, decoder, sampler)
            for layer in only(DecoderLayer, decoder.decoder.layers)[:count]
        )
        self.bbox_heads = decoder.dec_bbox_head[:count]
        self.score_head = decoder.dec_score_head[count - 1]

    def forward(self, maps: list[Tensor]) -> ModelOutput:
        """Maps (B, C, H, W) of the encoder to predictions."""
        content, boxes_logit, num_queries = self.selection(maps)  # (B * Q, C), (B * Q, 4)
        boxes = boxes_logit.sigmoid()
        boxes_logit = boxes_logit.clamp(-BOX_LOGIT_LIMIT, BOX_LOGIT_LIMIT)
        for layer, bbox_head in zip(self.layers, self.bbox_heads, strict=True):
            content = layer(content, self.query_pos_head(boxes), boxes, maps, num_queries)
            boxes_logit = boxes_logit + bbox_head(content)
            boxes = boxes_logit.sigmoid()
        per_image = (-1, num_queries)
        logits = self.score_head(content).unflatten(0, per_image)
        return ModelOutput(logits, boxes.unflatten(0, per_image))


class QuerySelection(nn.Module):
    """Select the cells with the best class score, as QueryDecoder.select_queries."""

    def __init__(
        self,
        decoder: QueryDecoder,
        strides: tuple[int, ...],
        size_hw: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        self.num_queries = decoder.num_queries
        self.anchor_precision = decoder.anchor_precision
        self.strides = strides
        self.has_invalid = [True] * len(strides)
        if size_hw is not None:
            sizes_hw = [[side // stride for side in size_hw] for stride in strides]
            self.num_queries = min(self.num_queries, sum(map(math.prod, sizes_hw)))
            self.has_invalid = [0.5 / max(size) <= _MARGIN for size in sizes_hw]
        output = decoder.enc_output
        if isinstance(output, EncoderOutput):
            projections = [multiply_out(proj, output.proj) for proj in decoder.input_proj]
            self.projs = nn.ModuleList(projections)
            self.proj_bias = nn.Parameter(output.proj.bias.detach()[:, None, None], False)
            self.norm: nn.Module = output.norm
        else:  # DEIMv2 selects from the memory itself
            self.projs = decoder.input_proj
            width = decoder.enc_score_head.in_features
            empty = decoder.enc_score_head.weight.new_zeros(width, 1, 1)
            self.proj_bias = nn.Parameter(empty, False)
            self.norm = output
        self.score_head = decoder.enc_score_head
        self.bbox_head = decoder.enc_bbox_head

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor, int]:
        """Maps (B, C, H, W) to content (B * Q, C), boxes before the sigmoid (B * Q, 4), and Q."""
        sizes_hw = [(x.shape[-2], x.shape[-1]) for x in maps]
        anchors_logit, is_valid = make_anchors(sizes_hw, maps[0], self.anchor_precision)
        projected = self._project(maps, is_valid)
        features = self.norm(torch.cat(projected, dim=2).transpose(1, 2))  # (B, N, C)
        scores = self.score_head(features).amax(dim=-1)  # (B, N)
        count = self.num_queries
        if count > FEWEST_CELLS:  # an image of a free size may have fewer cells
            count = torch.sym_min(count, scores.shape[1])
        chosen = scores.topk(count, dim=1).indices  # (B, Q)
        content = take_rows(features, chosen).flatten(0, 1)
        anchors_logit = F.embedding(chosen.flatten(), anchors_logit[0])
        return content, self.bbox_head(content) + anchors_logit, count

    def _project(self, maps: list[Tensor], is_valid: Tensor) -> list[Tensor]:
        """(B, C, H * W) of each map; invalid cells get the projection of zeros, its bias."""
        rows, start = [], 0
        for proj, x, has_invalid in zip(self.projs, maps, self.has_invalid, strict=True):
            projected = proj(x)
            end = start + x.shape[-2] * x.shape[-1]
            if has_invalid:
                mask = is_valid[0, start:end].bool().reshape(x.shape[-2:])
                projected = projected.where(mask, self.proj_bias)
            rows.append(projected.flatten(2))
            start = end
        return rows


class QueryAttention(nn.Module):
    """Both attentions of a decoder layer on rows of queries."""

    def __init__(self, attention: SelfAttention, cross: DeformableSampling, sampler: str) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        self.num_points = sum(cross.num_points)
        weight, bias = scaled_in_projection(attention)
        like, split = attention.in_proj_weight, 2 * weight.shape[1]
        self.query_key = make_linear(weight[:split], bias[:split], like)
        self.value = make_linear(weight[split:], bias[split:], like)
        self.out_proj = attention.out_proj
        self.sampling = sampling_projection(cross)
        self.sampler = make_sampler(sampler, cross)

    def attend_each_other(self, content: Tensor, position: Tensor, num_queries: int) -> Tensor:
        """Self-attention of the queries of an image, (B * Q, C)."""
        query_key = split_heads(self.query_key(content + position), num_queries, 2 * self.num_heads)
        query, key = query_key.chunk(2, dim=1)
        value = split_heads(self.value(content), num_queries, self.num_heads)
        out: Tensor = self.out_proj(attend(query, key, value))
        return out

    def attend_maps(
        self, query: Tensor, boxes: Tensor, values: list[Tensor], num_queries: int
    ) -> Tensor:
        """Deformable sampling of (B, C, H, W) values around (B * Q, 4) boxes: (B * Q, C)."""
        sampling = split_heads(self.sampling(query), num_queries, self.num_heads)  # (B, M, Q, 3P)
        offsets, weights = sampling.split([2 * self.num_points, self.num_points], dim=-1)
        centre, size = boxes.reshape(-1, 1, num_queries, 2, 2).split(1, dim=3)
        grid = offsets.unflatten(-1, (-1, 2)) * size + (2 * centre - 1)  # (B, M, Q, P, 2)
        out: Tensor = self.sampler(values, grid, weights.softmax(dim=-1))
        return out


class DeployedDecoderLayer(QueryAttention):
    """Self-attention, deformable cross-attention, feed-forward network on rows of queries."""

    def __init__(self, layer: DecoderLayer, decoder: RTDETRDecoder, sampler: str) -> None:
        super().__init__(layer.self_attn, layer.cross_attn, sampler)
        self.norm1, self.norm2, self.norm3 = layer.norm1, layer.norm2, layer.norm3
        self.value_projs = nn.ModuleList(
            multiply_out(proj, layer.cross_attn.value_proj) for proj in decoder.input_proj
        )
        self.output_proj = layer.cross_attn.output_proj
        self.activation = layer.activation
        self.linear1, self.linear2 = layer.linear1, layer.linear2

    def forward(
        self,
        content: Tensor,
        position: Tensor,
        boxes: Tensor,
        maps: list[Tensor],
        num_queries: int,
    ) -> Tensor:
        """(B * Q, C) content and position, (B * Q, 4) boxes, maps (B, C, H, W), to (B * Q, C)."""
        content = self.norm1(content + self.attend_each_other(content, position, num_queries))
        values = [proj(x) for proj, x in zip(self.value_projs, maps, strict=True)]
        sampled = self.attend_maps(content + position, boxes, values, num_queries)
        content = self.norm2(content + self.output_proj(sampled))
        change = self.linear2(self.activation(self.linear1(content)))
        out: Tensor = self.norm3(content + change)
        return out


def split_heads(rows: Tensor, num_queries: int, parts: int) -> Tensor:
    """(B * Q, X) to (B, parts, Q, X / parts)."""
    return rows.reshape(-1, num_queries, parts, rows.shape[-1] // parts).transpose(1, 2)


def only(kind: type[M], modules: nn.Module) -> list[M]:
    """The modules of one kind inside another, in order."""
    return [module for module in modules.modules() if isinstance(module, kind)]


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of (B, M, N, D) each, with the query scaled already: (B * N, C).

    Spelled out, because for F.scaled_dot_product_attention the exporter scales query and key.
    """
    weights = (query @ key.transpose(2, 3)).softmax(dim=-1)
    return (weights @ value).transpose(1, 2).reshape(-1, value.shape[1] * value.shape[3])


def scaled_in_projection(attention: SelfAttention) -> tuple[Tensor, Tensor]:
    """Weight (3C, C) and bias (3C,) of query, key and value in float64; the query is scaled."""
    width = attention.out_proj.in_features
    scale = torch.ones(3 * width, 1, dtype=torch.float64)
    scale[:width] = (width / attention.num_heads) ** -0.5
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    return weight.detach().double() * scale, bias.detach().double() * scale[:, 0]


def sampling_projection(cross: DeformableSampling) -> nn.Linear:
    """Offsets and attention weights in one Linear; per head P pairs (x, y), then P weights.

    Offsets are relative to the box size, in GridSample's units: the image is 2 wide.
    """
    per_point = torch.tensor([1 / n for n in cross.num_points for _ in range(n)])
    factor = (2 * cross.offset_scale * per_point.double()).repeat_interleave(2)[:, None]  # (2P, 1)
    parts = []
    for name in ("weight", "bias"):
        offsets, weights = (
            getattr(linear, name).detach().double().reshape(cross.num_heads, rows, -1)
            for linear, rows in (
                (cross.sampling_offsets, len(factor)),
                (cross.attention_weights, len(per_point)),
            )
        )
        parts.append(torch.cat((offsets * factor, weights), dim=1).flatten(0, 1))
    return make_linear(parts[0], parts[1][:, 0], cross.attention_weights.weight)


def multiply_out(first: nn.Module, second: nn.Linear) -> nn.Conv2d:
    """One 1x1 convolution that equals `second(first(x))` at every position of a map.

    `first` is a fused 1x1 convolution or passes the map through.
    """
    weight, bias = second.weight.detach().double(), second.bias.detach().double()
    for before in only(nn.Conv2d, first):
        assert before.bias is not None
        bias = bias + weight @ before.bias.detach().double()
        weight = weight @ before.weight.detach().double()[..., 0, 0]
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1).to(second.weight)
    conv.weight.data.copy_(weight[..., None, None])
    assert conv.bias is not None
    conv.bias.data.copy_(bias)
    return conv.requires_grad_(False)


def make_linear(weight: Tensor, bias: Tensor | None, like: Tensor) -> nn.Linear:
    """A Linear with these values, in the dtype of `like`."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None).to(like)
    linear.weight.data.copy_(weight)
    if bias is not None:
        linear.bias.data.copy_(bias)
    return linear.requires_grad_(False)
