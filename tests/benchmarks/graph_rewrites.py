"""Undo single rewrites of the deployed network, for bench_onnx_graph.py --rewrites.

A change receives the deployed network, which it modifies, and the trained one.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from rtdetr_cli.backends.onnx.decoder import DeployedDecoder, only
from rtdetr_cli.backends.onnx.network import DeployedNetwork
from rtdetr_cli.core.structures import ModelOutput
from rtdetr_cli.nn.decoder import refine
from rtdetr_cli.nn.rtdetr import RTDETRNetwork, fuse

SIZE_HW = (640, 640)


class Projected(nn.Module):
    """The input projection as a separate step before the decoder."""

    def __init__(self, decoder: nn.Module, projections: list[nn.Conv2d]) -> None:
        super().__init__()
        self.decoder, self.projections = decoder, nn.ModuleList(projections)

    def forward(self, maps: list[Tensor]) -> ModelOutput:
        """Maps (B, C, H, W) to predictions."""
        return self.decoder([p(x) for p, x in zip(self.projections, maps, strict=True)])


class TokenLinear(nn.Module):
    """A 1x1 convolution as a product with flattened tokens."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        tokens = F.linear(x.flatten(2).transpose(1, 2), self.weight[..., 0, 0], self.bias)
        return tokens.transpose(1, 2).unflatten(2, x.shape[2:])


class BoxCarry(DeployedDecoder):
    """Carries the box and computes its logit in each layer, as the network does."""

    def forward(self, maps: list[Tensor]) -> ModelOutput:
        """As DeployedDecoder.forward."""
        content, boxes_logit = self.selection(maps)
        boxes = boxes_logit.sigmoid()
        for layer, head in zip(self.layers, self.bbox_heads, strict=True):
            content = layer(content, self.query_pos_head(boxes), boxes, maps)
            boxes = refine(head(content), boxes)
        count = (-1, self.selection.num_queries)
        logits = self.score_head(content).unflatten(0, count)
        return ModelOutput(logits, boxes.unflatten(0, count))


def fused(network: RTDETRNetwork) -> RTDETRNetwork:
    """The network as it would be exported without a deployed form."""
    return fuse(network).cpu().float()


def restore_decoder(graph: DeployedNetwork, network: RTDETRNetwork) -> None:
    """The trained decoder."""
    graph.decoder = fused(network).decoder


def restore_encoder(graph: DeployedNetwork, network: RTDETRNetwork) -> None:
    """The trained encoder, whose AIFI adds the position before it projects."""
    graph.encoder = fused(network).encoder


def unfold_projection(graph: DeployedNetwork, network: RTDETRNetwork) -> None:
    """Project the maps once and compute values from the result."""
    decoder = fused(network).decoder
    projections = only(nn.Conv2d, decoder.input_proj)
    width = projections[0].out_channels
    decoder.input_proj = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in projections)
    for conv in decoder.input_proj:
        nn.init.dirac_(conv.weight)
        nn.init.zeros_(conv.bias)
    graph.decoder = Projected(
        DeployedDecoder(decoder, network.config.strides, SIZE_HW, "grid_sample"), projections
    )


def values_by_tokens(graph: DeployedNetwork, network: RTDETRNetwork) -> None:
    """Values by one product per layer and level."""
    for layer in graph.decoder.layers:
        layer.value_projs = nn.ModuleList(map(TokenLinear, layer.value_projs))


def carry_boxes(graph: DeployedNetwork, network: RTDETRNetwork) -> None:
    """Inverse sigmoids."""
    graph.decoder.__class__ = BoxCarry


def keep(graph: DeployedNetwork, network: RTDETRNetwork) -> None:
    """Nothing here: the pass over the graph is left out by the caller."""


CHANGES: dict[str, Callable[[DeployedNetwork, RTDETRNetwork], None]] = {
    "the deployed decoder": restore_decoder,
    "the deployed AIFI": restore_encoder,
    "the folded input projection": unfold_projection,
    "values as convolutions": values_by_tokens,
    "the box as a logit": carry_boxes,
    "pads in the pool": keep,
}
