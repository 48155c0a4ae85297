"""Typed config of an architecture, as in models/*.yaml. Does not import torch.

Derived values (input channels, strides, number of classes) are omitted on purpose. Each limit is
several times the value of the largest published network; scale.py limits the total size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from rtdetr_cli.config.fields import FieldError, NonNegative, OneOf, Queries, Range
from rtdetr_cli.core.bounded_text import show

Width = Annotated[int, Range(1, 2**14)]
"""Channels; 2048 in RT-DETR-X and H."""
PairedWidth = Annotated[int, Range(2, 2**14)]
"""Even number of channels: half of them are used as well."""
Blocks = Annotated[int, Range(1, 512)]
"""Blocks of a stage; 23 in RT-DETR-R101."""
Layers = Annotated[int, Range(1, 64)]
"""Layers or small blocks in a row; 6 in all of them."""
Heads = Annotated[int, Range(1, 256)]
"""Attention heads; 8 in all of them."""
FeedForward = Annotated[int, Range(1, 2**16)]
"""Width of a feed-forward network; 2048 in RT-DETR-H."""
Points = Annotated[int, Range(1, 64)]
"""Sampling points of a head on a map; 4 in all of them."""
Precision = Annotated[str, OneOf(("float16", "float32", "float64"))]


@dataclass(frozen=True)
class HGStage:
    """One stage of HGNetv2."""

    mid: Width
    """Channels of the convolutions inside a block."""
    out: PairedWidth
    """Output channels of the stage."""
    blocks: Blocks
    """Number of HG blocks; those after the first add an identity residual."""
    kernel: Annotated[int, Range(1, 31)] = 3
    """Kernel size of the block's convolutions, pixels, odd; 5 in RT-DETR-H."""
    layers: Layers = 6
    """Convolutions per block."""
    light: bool = False
    """True: each convolution is a 1x1 followed by a depthwise one."""


@dataclass(frozen=True)
class HGNetv2Config:
    """Backbone of RT-DETR-L, X, H and n."""

    stem: tuple[PairedWidth, Width]
    """Channels (middle, out) of the stem, which has stride 4."""
    stages: tuple[HGStage, ...]
    """Four stages; the last three give S3, S4 and S5."""

    @property
    def map_widths(self) -> tuple[int, ...]:
        """Channels that leave each stage."""
        return tuple(stage.out for stage in self.stages)


@dataclass(frozen=True)
class PResNetConfig:
    """ResNet-vd backbone of RT-DETR-R18, R34, R50 and R101."""

    blocks: tuple[Blocks, Blocks, Blocks, Blocks]
    """Residual blocks per stage."""
    bottleneck: bool
    """True: 1x1, 3x3, 1x1 with four-fold expansion (R50, R101); False: two 3x3 (R18, R34)."""
    stem: tuple[Width, Width, Width] = (32, 32, 64)
    """Channels of the stem's three 3x3 convolutions."""
    widths: tuple[Width, Width, Width, Width] = (64, 128, 256, 512)
    """Channels of the 3x3 convolutions of each stage."""

    @property
    def map_widths(self) -> tuple[int, ...]:
        """Channels that leave each stage."""
        return tuple(width * (4 if self.bottleneck else 1) for width in self.widths)


@dataclass(frozen=True)
class EncoderConfig:
    """Hybrid encoder: AIFI on S5, then CCFF."""

    hidden_dim: Width = 256
    """Width of the three maps."""
    ffn_dim: FeedForward = 1024
    """Width of AIFI's feed-forward network."""
    num_layers: Layers = 1
    """AIFI layers (2 in RT-DETR-H)."""
    num_heads: Heads = 8
    """Attention heads of AIFI."""
    num_csp_blocks: Layers = 3
    """RepVGG blocks in each CSP fusion block."""
    expansion: Annotated[float, Range(0.01, 16)] = 1.0
    """Width inside a fusion block over `hidden_dim`."""
    position_precision: Precision = "float32"
    """Precision of the position embedding of AIFI: float32, or float64 as in Hugging Face."""


@dataclass(frozen=True)
class DecoderConfig:
    """Query selection and the deformable decoder."""

    hidden_dim: Width = 256
    """Width of the queries."""
    ffn_dim: FeedForward = 1024
    """Width of each layer's feed-forward network."""
    num_layers: Layers = 6
    """Decoder layers that are trained."""
    eval_layers: Layers | None = None
    """Decoder layers that run at inference; None means all."""
    num_heads: Heads = 8
    """Attention heads."""
    num_queries: Queries = 300
    """Queries chosen from the encoder's memory."""
    num_points: tuple[Points, Points, Points] = (4, 4, 4)
    """Sampling points per head on the maps of stride 8, 16 and 32."""
    sampling: Annotated[str, OneOf(("bilinear", "discrete"))] = "bilinear"
    """`bilinear`, or `discrete` for the official "dsp" variants, which round to whole pixels."""
    anchor_precision: Precision = "float32"
    """Precision of the anchor logits: float32 official, float64 exact, float16 in files trained
    with anchors cast to half. The difference is visible in float64 only."""


@dataclass(frozen=True)
class RecipeConfig:
    """Settings of the official recipe that depend on the architecture (the v2 configs)."""

    epochs: Annotated[int, Range(1, 10**6)] = 72
    """Epochs on COCO for the published AP."""
    backbone_lr: NonNegative = 1e-5
    """Learning rate of a pretrained backbone; the rest has 1e-4."""
    freeze_backbone_norm: bool = False
    """Freeze the BatchNorms of a pretrained backbone."""
    freeze_stem: bool = False
    """Freeze the stem of a pretrained backbone."""
    multi_scale: bool = True
    """Train on 480..800 pixels instead of one size."""


@dataclass(frozen=True)
class ModelConfig:
    """One architecture."""

    name: str
    """Display name: `rtdetr-l`."""
    backbone: HGNetv2Config | PResNetConfig
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    norm_eps: Annotated[float, Range(1e-12, 1)] = 1e-5
    """BatchNorm epsilon: 1e-5 official, 1e-3 in networks built by Ultralytics."""

    def __post_init__(self) -> None:
        """Check the fields against each other; the range of each is in its type."""
        encoder, decoder = self.encoder, self.decoder
        for part, section in (("encoder", encoder), ("decoder", decoder)):
            width, heads = section.hidden_dim, section.num_heads
            _require(
                heads >= 1 and width % heads == 0,
                f"{part}.hidden_dim",
                f"must be a multiple of {part}.num_heads, found {show(width)} and {show(heads)}",
            )
        _require(encoder.hidden_dim % 4 == 0, "encoder.hidden_dim", "must be a multiple of 4")
        has_channels = int(encoder.hidden_dim * encoder.expansion) >= 1
        _require(has_channels, "encoder.expansion", "leaves no channel of encoder.hidden_dim")
        is_within = 1 <= (decoder.eval_layers or 1) <= decoder.num_layers
        _require(is_within, "decoder.eval_layers", "must be in 1..num_layers")
        if isinstance(self.backbone, HGNetv2Config):
            stages = self.backbone.stages
            _require(len(stages) == 4, "backbone.stages", "must list four stages")
            is_odd = all(stage.kernel % 2 for stage in stages)
            _require(is_odd, "backbone.stages", "must have odd kernels")


def _require(holds: bool, key: str, complaint: str) -> None:
    if not holds:
        raise FieldError(key, complaint)


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network input: RGB, resized, divided by 255."""

    size_hw: tuple[int, int] = (640, 640)
    """Height and width in pixels, multiples of 32."""
    antialias: bool = True
    """True: Pillow's bilinear with antialias (official). False: OpenCV's bilinear (Ultralytics)."""
