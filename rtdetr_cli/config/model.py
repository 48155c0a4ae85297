"""Typed config of an architecture, as in models/*.yaml. Does not import torch.

Derived values (input channels, strides, number of classes) are omitted on purpose. Each limit is
several times the value of the largest published network; scale.py limits the total size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from rtdetr_cli.config.fields import (
    MAX_SIDE,
    FieldError,
    Fraction,
    NonNegative,
    OneOf,
    Queries,
    Range,
)
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
"""Sampling points of a head on a map; 4 in all RT-DETR, 2 to 6 in D-FINE and DEIMv2."""
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
    """Backbone of RT-DETR-L, X, H and n, of D-FINE, DEIM and the small DEIMv2."""

    stem: tuple[PairedWidth, Width]
    """Channels (middle, out) of the stem, which has stride 4."""
    stages: tuple[HGStage, ...]
    """Three or four stages, of stride 4, 8, 16 and 32."""
    num_maps: Annotated[int, Range(1, 3)] = 3
    """Stages whose maps enter the encoder, counted from the last one."""
    learnable_affine: bool = False
    """A learned scale and shift behind every activation (B0 to B3, Atto, Femto, Pico)."""

    @property
    def map_widths(self) -> tuple[int, ...]:
        """Channels that leave each stage."""
        return tuple(stage.out for stage in self.stages)


@dataclass(frozen=True)
class PResNetConfig:
    """ResNet-vd backbone of RT-DETR-R18, R34, R50 and R101."""

    num_maps: ClassVar[int] = 3

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
    """Hybrid encoder: AIFI on the last map, then CCFF."""

    hidden_dim: Width = 256
    """Width of the maps."""
    fusion: Annotated[str, OneOf(("csp", "elan", "elan_sum"))] = "csp"
    """Fusion blocks: `csp` of RT-DETR; `elan` of D-FINE (RepNCSPELAN4 on two maps concatenated);
    `elan_sum` of DEIMv2 (on the sum of two maps)."""
    ffn_dim: FeedForward = 1024
    """Width of AIFI's feed-forward network."""
    num_layers: Layers = 1
    """AIFI layers (2 in RT-DETR-H)."""
    num_heads: Heads = 8
    """Attention heads of AIFI."""
    num_csp_blocks: Layers = 3
    """RepVGG blocks in each CSP fusion block."""
    expansion: Annotated[float, Range(0.01, 16)] = 1.0
    """Width inside a fusion block over `hidden_dim`; twice that width in `elan` and `elan_sum`."""
    position_precision: Precision = "float32"
    """Precision of the position embedding of AIFI: float32, or float64 as in Hugging Face."""

    @property
    def fusion_width(self) -> int:
        """Channels inside a fusion block."""
        return int(self.hidden_dim * self.expansion // (1 if self.fusion == "csp" else 2))


@dataclass(frozen=True)
class LiteEncoderConfig:
    """Encoder of DEIMv2 Atto, Femto and Pico: one map in, two maps out, no attention."""

    hidden_dim: Width = 64
    """Width of the two maps."""
    num_csp_blocks: Layers = 2
    """RepVGG blocks in each CSP layer of a fusion block."""
    expansion: Annotated[float, Range(0.01, 16)] = 0.34
    """Twice the width inside a fusion block over `hidden_dim`."""

    @property
    def fusion_width(self) -> int:
        """Channels inside a fusion block."""
        return int(self.hidden_dim * self.expansion // 2)


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
    num_points: tuple[Points, ...] = (4, 4, 4)
    """Sampling points per head on each map, finest map first."""
    activation: Annotated[str, OneOf(("relu", "silu"))] = "relu"
    """Activation of feed-forward networks, position and box heads; `silu` in DEIM and RT-DETRv4."""
    position_layers: Annotated[int, Range(2, 3)] = 2
    """Linear layers of the query position head; 3 in DEIM-RT-DETRv2."""
    sampling: Annotated[str, OneOf(("bilinear", "discrete"))] = "bilinear"
    """`bilinear`, or `discrete` for the official "dsp" variants, which round to whole pixels."""
    anchor_precision: Precision = "float32"
    """Precision of the anchor logits: float32 official, float64 exact, float16 in files trained
    with anchors cast to half. The difference is visible in float64 only."""


@dataclass(frozen=True)
class FDRDecoderConfig(DecoderConfig):
    """Decoder of D-FINE, DEIM-D-FINE and RT-DETRv4: fine-grained distribution refinement."""

    num_points: tuple[Points, ...] = (3, 6, 3)
    """Sampling points per head on each map, finest map first."""
    reg_max: Annotated[int, Range(4, 256, multiple_of=2)] = 32
    """Intervals of an edge's distribution, even: `reg_max` + 1 bins, the middle one at zero."""
    reg_scale: Annotated[float, Range(0.1, 100)] = 4.0
    """Curvature of the weighting function; 8 in D-FINE-X."""


@dataclass(frozen=True)
class DEIMv2DecoderConfig(FDRDecoderConfig):
    """The same with RMSNorm, SwiGLU, SiLU and a position embedding that is computed once."""

    ffn_dim: Annotated[int, Range(2, 2**16, multiple_of=2)] = 1024
    """Twice the width of each layer's SwiGLU."""
    activation: Annotated[str, OneOf(("relu", "silu"))] = "silu"
    """Activation of position, box and quality heads."""
    position_layers: Annotated[int, Range(2, 3)] = 3
    """Linear layers of the query position head."""
    gateway: bool = True
    """Gate behind the cross-attention; without it a residual and a norm (Atto, Femto, Pico)."""
    shared_box_head: bool = False
    """One box head for all layers (Atto, Femto, Pico)."""


@dataclass(frozen=True)
class RecipeConfig:
    """Settings of the official recipe that depend on the architecture (the v2 configs)."""

    epochs: Annotated[int, Range(1, 10**6)] = 72
    """Epochs on COCO for the published AP."""
    imgsz: Annotated[int, Range(32, MAX_SIDE, multiple_of=32)] = 640
    """Input size of the published network; 320 in DEIMv2 Atto, 416 in Femto."""
    lr: NonNegative = 1e-4
    """Learning rate of a pretrained network, but for its backbone."""
    backbone_lr: NonNegative = 1e-5
    """Learning rate of a pretrained backbone."""
    lr_batch: Annotated[int, Range(1, 2**16)] | None = None
    """Images a step for which these two are; they are in proportion to it. None: for any number."""
    freeze_backbone_norm: bool = False
    """Freeze the BatchNorms of a pretrained backbone."""
    freeze_stem: bool = False
    """Freeze the stem of a pretrained backbone."""
    multi_scale: bool = True
    """Train on 480..800 pixels instead of one size."""
    loss: Annotated[str, OneOf(("vfl", "mal"))] = "vfl"
    """Classification loss: varifocal, or `mal` where the published network was trained with it."""
    refinement: bool = True
    """For an FDR decoder: FGL, DDF, and boxes on the union of matches (not DEIMv2 Atto to Pico)."""
    iou_matching: Fraction = 0.0
    """Final share of the epochs matched by score and IoU alone; DEIMv2 0.1, and 0.15 in N."""
    distill: NonNegative = 5.0
    """Weight of the distillation from a teacher; 15 in RT-DETRv4-L, 20 in X."""
    restart_ema_decay: Fraction = 0.9999
    """Decay of the moving average after the restart from the best weights; 0.9998 in D-FINE-X."""


@dataclass(frozen=True)
class ModelConfig:
    """One architecture."""

    name: str
    """Display name: `rtdetr-l`."""
    backbone: HGNetv2Config | PResNetConfig
    encoder: EncoderConfig | LiteEncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    norm_eps: Annotated[float, Range(1e-12, 1)] = 1e-5
    """BatchNorm epsilon: 1e-5 official, 1e-3 in networks built by Ultralytics."""

    def __post_init__(self) -> None:
        """Check the fields against each other; the range of each is in its type."""
        encoder, decoder = self.encoder, self.decoder
        if isinstance(encoder, EncoderConfig):
            _require_heads("encoder", encoder)
            _require(encoder.hidden_dim % 4 == 0, "encoder.hidden_dim", "must be a multiple of 4")
        _require_heads("decoder", decoder)
        has_channels = encoder.fusion_width >= 1
        _require(has_channels, "encoder.expansion", "leaves no channel of encoder.hidden_dim")
        is_within = 1 <= (decoder.eval_layers or 1) <= decoder.num_layers
        _require(is_within, "decoder.eval_layers", "must be in 1..num_layers")
        if isinstance(self.backbone, HGNetv2Config):
            stages = self.backbone.stages
            _require(len(stages) in {3, 4}, "backbone.stages", "must list three or four stages")
            is_odd = all(stage.kernel % 2 for stage in stages)
            _require(is_odd, "backbone.stages", "must have odd kernels")
        maps_in, maps_out = self.backbone.num_maps, len(self.strides)
        takes_one = isinstance(encoder, LiteEncoderConfig)
        reads_stride_16 = not takes_one or len(self.backbone.map_widths) == 3
        _require(reads_stride_16, "backbone.stages", "must list three stages for a lite encoder")
        _require(
            maps_in == 1 if takes_one else maps_in > 1,
            "backbone.num_maps",
            "must be 1 for a lite encoder, 2 or 3 for a hybrid one",
        )
        _require(
            len(decoder.num_points) == maps_out,
            "decoder.num_points",
            f"must have a number for each of the {maps_out} maps of the encoder",
        )

    @property
    def size_hw(self) -> tuple[int, int]:
        """Input size of the published network, for whatever says none."""
        return self.recipe.imgsz, self.recipe.imgsz

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each map that enters the decoder, finest map first."""
        last = 4 * 2 ** (len(self.backbone.map_widths) - 1)
        if isinstance(self.encoder, LiteEncoderConfig):
            return (last, 2 * last)
        return tuple(last // 2**level for level in reversed(range(self.backbone.num_maps)))


def _require_heads(part: str, section: EncoderConfig | DecoderConfig) -> None:
    width, heads = section.hidden_dim, section.num_heads
    _require(
        heads >= 1 and width % heads == 0,
        f"{part}.hidden_dim",
        f"must be a multiple of {part}.num_heads, found {show(width)} and {show(heads)}",
    )


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
