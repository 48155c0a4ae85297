"""The FDR decoders as exported: those of nn, with their layers and query selection deployed.

Layers behind the one in use are left out, and so are the score heads and quality estimates before
it. Legend: as in decoder.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtdetr_cli.backends.onnx.decoder import QueryAttention, QuerySelection
from rtdetr_cli.core.structures import ModelOutput
from rtdetr_cli.nn.fdr_decoder import FDRAttention, FDRDecoder


class DeployedFDRDecoder(nn.Module):
    """Query selection and the active decoder layers on rows of queries."""

    def __init__(
        self,
        decoder: FDRDecoder,
        strides: tuple[int, ...],
        size_hw: tuple[int, int] | None,
        sampler: str,
    ) -> None:
        """Build it from a fused decoder, which is used up."""
        super().__init__()
        self.selection = QuerySelection(decoder, strides, size_hw)
        self.input_proj = decoder.input_proj
        self.layers = nn.ModuleList(
            DeployedFDRLayer(layer, sampler)
            for layer in decoder.decoder.layers[: decoder.eval_layers]
            if isinstance(layer, FDRAttention)
        )
        decoder.decoder.layers = self.layers
        self.refinement = decoder

    def forward(self, maps: list[Tensor]) -> ModelOutput:
        """Maps (B, C, H, W) of the encoder to predictions."""
        content, boxes_logit, num_queries = self.selection(maps)  # (B * Q, C), (B * Q, 4)
        values = [proj(x) for proj, x in zip(self.input_proj, maps, strict=True)]
        layers, _ = self.refinement.decode(content, boxes_logit.sigmoid(), (values, num_queries))
        logits, boxes = self.refinement.predict(len(layers) - 1, layers[-1])
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:].relu()), dim=-1)  # no negative sizes
        per_image = (-1, num_queries)
        return ModelOutput(logits.unflatten(0, per_image), boxes.unflatten(0, per_image))


class DeployedFDRLayer(QueryAttention):
    """A decoder layer on rows of queries; the maps are sampled as they are."""

    def __init__(self, layer: FDRAttention, sampler: str) -> None:
        super().__init__(layer.self_attn, layer.cross_attn, sampler)
        del layer.self_attn, layer.cross_attn
        self.rest = layer

    def forward(
        self,
        content: Tensor,
        position: Tensor,
        boxes: Tensor,
        maps: list[Tensor],
        num_queries: int,
    ) -> Tensor:
        """(B * Q, C) content and position, (B * Q, 4) boxes, maps (B, C, H, W), to (B * Q, C)."""
        attended = self.attend_each_other(content, position, num_queries)
        content = self.rest.norm1(content + attended)
        sampled = self.attend_maps(content + position, boxes, maps, num_queries)
        return self.rest.finish(content, sampled)
