"""The typed shadow of models/*.yaml: what one RT-DETR is made of. Torch-free.

Everything derivable (input channels, strides, number of classes) is left out on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rtdetr_cli.core.errors import ConfigError


@dataclass(frozen=True)
class HGStage:
    """One stage of HGNetv2: a row of the paper's table."""

    mid: int
    """Channels of the convolutions inside a block."""
    out: int
    """Channels that leave the stage."""
    blocks: int
    """Number of HG blocks; those after the first add an identity residual."""
    kernel: int = 3
    """Kernel size of the block's convolutions, pixels."""
    layers: int = 6
    """Convolutions per block."""
    light: bool = False
    """True: each convolution is a 1x1 followed by a depthwise one."""


@dataclass(frozen=True)
class HGNetv2Config:
    """Backbone of RT-DETR-L, X, H and n."""

    stem: tuple[int, int]
    """Channels (middle, out) of the stem, which has stride 4."""
    stages: tuple[HGStage, ...]
    """Four stages; the last three give S3, S4 and S5."""


@dataclass(frozen=True)
class PResNetConfig:
    """ResNet-vd backbone of RT-DETR-R18, R34, R50 and R101."""

    blocks: tuple[int, int, int, int]
    """Residual blocks per stage."""
    bottleneck: bool
    """True: 1x1, 3x3, 1x1 with four-fold expansion (R50, R101); False: two 3x3 (R18, R34)."""
    stem: tuple[int, int, int] = (32, 32, 64)
    """Channels of the stem's three 3x3 convolutions."""
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    """Channels of the 3x3 convolutions of each stage."""


@dataclass(frozen=True)
class EncoderConfig:
    """Hybrid encoder: AIFI on S5, then CCFF."""

    hidden_dim: int = 256
    """Width of the three maps."""
    ffn_dim: int = 1024
    """Width of AIFI's feed-forward network."""
    num_layers: int = 1
    """AIFI layers (2 in RT-DETR-H)."""
    num_heads: int = 8
    """Attention heads of AIFI."""
    num_csp_blocks: int = 3
    """RepVGG blocks in each CSP fusion block."""
    expansion: float = 1.0
    """Width inside a fusion block over `hidden_dim`."""
    position_precision: str = "float32"
    """What AIFI's position embedding is rounded to: float32, or float64 as in Hugging Face."""


@dataclass(frozen=True)
class DecoderConfig:
    """Query selection and the deformable decoder."""

    hidden_dim: int = 256
    """Width of the queries."""
    ffn_dim: int = 1024
    """Width of each layer's feed-forward network."""
    num_layers: int = 6
    """Decoder layers that are trained."""
    eval_layers: int | None = None
    """Decoder layers that run at inference; None means all."""
    num_heads: int = 8
    """Attention heads."""
    num_queries: int = 300
    """Queries chosen from the encoder's memory."""
    num_points: tuple[int, int, int] = (4, 4, 4)
    """Sampling points per head on the maps of stride 8, 16 and 32."""
    sampling: str = "bilinear"
    """`bilinear`, or `discrete` for the official "dsp" variants, which round to whole pixels."""
    anchor_precision: str = "float32"
    """What the anchors' logits are rounded to: float32 official, float64 exact, float16 in files
    that were trained with anchors cast to half. Only float64 shows the difference."""


@dataclass(frozen=True)
class RecipeConfig:
    """What the official recipe sets per architecture (reference: the v2 configs)."""

    epochs: int = 72
    """Epochs on COCO that reach the published AP."""
    backbone_lr: float = 1e-5
    """Learning rate of a pretrained backbone; the rest has 1e-4."""
    freeze_backbone_norm: bool = False
    """Keep the BatchNorms of a pretrained backbone as they are."""
    freeze_stem: bool = False
    """Keep the stem of a pretrained backbone as it is."""
    multi_scale: bool = True
    """Train on 480..800 pixels instead of one size."""


@dataclass(frozen=True)
class ModelConfig:
    """One architecture."""

    name: str
    """For people: `rtdetr-l`."""
    backbone: HGNetv2Config | PResNetConfig
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    norm_eps: float = 1e-5
    """BatchNorm epsilon: 1e-5 official, 1e-3 in networks built by Ultralytics."""

    def __post_init__(self) -> None:
        decoder, encoder = self.decoder, self.encoder
        _require(
            decoder.num_heads >= 1 and decoder.hidden_dim % decoder.num_heads == 0,
            self.name,
            "decoder.hidden_dim must be a multiple of decoder.num_heads",
        )
        _require(
            encoder.num_heads >= 1 and encoder.hidden_dim % encoder.num_heads == 0,
            self.name,
            "encoder.hidden_dim must be a multiple of encoder.num_heads",
        )
        _require(
            encoder.hidden_dim % 4 == 0, self.name, "encoder.hidden_dim must be a multiple of 4"
        )
        _require(
            decoder.sampling in {"bilinear", "discrete"},
            self.name,
            "decoder.sampling must be bilinear or discrete",
        )
        for key, value in (
            ("encoder.position_precision", encoder.position_precision),
            ("decoder.anchor_precision", decoder.anchor_precision),
        ):
            known = value in {"float16", "float32", "float64"}
            _require(known, self.name, f"{key} must be float16, float32 or float64")
        _require(decoder.num_layers >= 1, self.name, "decoder.num_layers must be at least 1")
        _require(
            1 <= (decoder.eval_layers or 1) <= decoder.num_layers,
            self.name,
            "decoder.eval_layers must lie in 1..num_layers",
        )
        _require(decoder.num_queries >= 1, self.name, "decoder.num_queries must be at least 1")
        if isinstance(self.backbone, HGNetv2Config):
            _require(
                len(self.backbone.stages) == 4, self.name, "backbone.stages must list four stages"
            )


def _require(holds: bool, name: str, sentence: str) -> None:
    if not holds:
        raise ConfigError(f"{name}: {sentence}")


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the network's input: RGB, stretched to a size, divided by 255."""

    size_hw: tuple[int, int] = (640, 640)
    """Height and width in pixels, multiples of 32."""
    antialias: bool = True
    """True: Pillow's bilinear with antialias (official). False: OpenCV's bilinear (Ultralytics)."""
