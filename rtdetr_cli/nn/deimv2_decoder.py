"""The decoder of DEIMv2 (arXiv 2509.20787) on HGNetv2: that of fdr_decoder.py, made lighter.

Norms are RMSNorm, feed-forward networks SwiGLU, the memory is not projected before the selection,
and the position embedding is computed once. Legend: B batch, Q queries, C hidden_dim.
"""

from __future__ import annotations

from torch import Tensor, nn

from rtdetr_cli.config.model import DEIMv2DecoderConfig
from rtdetr_cli.nn.distribution import Gate
from rtdetr_cli.nn.fdr_decoder import FDRAttention, FDRDecoder, add
from rtdetr_cli.nn.layers import RMSNorm, SwiGLU


class DEIMv2Decoder(FDRDecoder):
    """The small networks share one box head; it is stored once, as `dec_bbox_head.0`."""

    def __init__(self, config: DEIMv2DecoderConfig, in_channels: int, num_classes: int) -> None:
        layers: list[nn.Module] = [DEIMv2Layer(config) for _ in range(config.num_layers)]
        super().__init__(config, in_channels, num_classes, layers)
        self.enc_output = nn.Identity()
        if config.shared_box_head:
            self.dec_bbox_head = self.dec_bbox_head[:1]

    def position(self, boxes: Tensor, earlier: Tensor | None) -> Tensor:
        """That of the selected boxes, in all layers."""
        return super().position(boxes, None) if earlier is None else earlier


class DEIMv2Layer(FDRAttention):
    """Self-attention, deformable sampling, SwiGLU; post-norm."""

    def __init__(self, config: DEIMv2DecoderConfig) -> None:
        width = config.hidden_dim
        super().__init__(config, RMSNorm(width))
        self.gateway = Gate(width, RMSNorm(width)) if config.gateway else None
        self.norm2 = None if config.gateway else RMSNorm(width)
        self.swish_ffn = SwiGLU(width, config.ffn_dim // 2)
        self.norm3 = RMSNorm(width)

    def finish(self, content: Tensor, sampled: Tensor) -> Tensor:
        """A gate or a norm, then SwiGLU: (..., C) content and sampled to (..., C)."""
        if self.gateway is not None:
            content = self.gateway(content, sampled)
        elif self.norm2 is not None:
            content = self.norm2(content + sampled)
        out: Tensor = self.norm3(add(content, self.swish_ffn(content)))
        return out
