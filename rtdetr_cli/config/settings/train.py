"""Settings of `rtdetr train`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from rtdetr_cli.config.fields import (
    BadImages,
    Count,
    CountFromZero,
    Family,
    Fraction,
    ImageSize,
    NonNegative,
    OneOf,
    Range,
    Workers,
)
from rtdetr_cli.config.model_path import is_architecture
from rtdetr_cli.config.settings.shared import RunFolderSettings
from rtdetr_cli.core.errors import UsageError

OTHER_OPTIMIZERS = tuple(
    (name, "RT-DETR is trained with AdamW; give adamw")
    for name in ("adam", "adamax", "nadam", "radam", "rmsprop", "musgd")
)
"""Optimizers of other tools, and the reason why they are not supported."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings(RunFolderSettings):
    """Train or fine-tune a detector."""

    mode = "train"
    groups: ClassVar[dict[str, str]] = {
        "model": "Model and data",
        "epochs": "Duration, batch and image size",
        "device": "Machine",
        "val": "Validation, checkpoints and logs",
        "optimizer": "Optimizer (None: set by the recipe of the architecture and the run length)",
        "teacher": "Distillation",
        "num_denoising": "Denoising",
        "photometric": "Augmentation (None: set by the recipe)",
    }

    model: str = "rtdetr-l.pt"
    """Weights to fine-tune (.pt), a run folder or an architecture (.yaml)."""
    data: str | None = None
    """Data set: a name (coco8), YAML, folder or COCO json; None: that of the run or the weights."""
    download: bool | None = None
    """Download the data set if absent: true without a question, false never; None: up to 1 GB."""
    bad_images: BadImages = "error"
    """error, or skip: leave out images that cannot be decoded or have a wrong label."""
    pretrained: str | None = None
    """Initial weights of a .yaml architecture: a file, or `backbone` (ImageNet); None: random."""
    family: Family | None = None
    """dfine, deim or rtdetrv4, for initial weights whose tensors and file name do not say which."""
    resume: bool | str = False
    """Resume a stopped run: true for the newest one, or the path of its last.pt."""
    recipe: str | None = None
    """Base settings: a name from cfg/recipes or a .yaml; other keys override it."""
    freeze: str | None = None
    """Parts to freeze: a number of leading backbone stages, backbone, or names; 0: nothing."""
    classes: tuple[int | str, ...] | None = None
    """Classes to train and validate on, names or indices, e.g. cat,dog; None: all."""
    single_cls: bool = False
    """Merge all classes into one, named object."""
    fraction: Annotated[float, Range(0.001, 1)] = 1.0
    """Fraction of the training images to use, sampled with the seed."""

    epochs: Count = 72
    """Number of passes over the training images."""
    time: Annotated[float, Range(0, 10**6)] | None = None
    """Time budget in hours; sets epochs and the schedule from the measured epoch time."""
    patience: CountFromZero = 0
    """Stop after this many epochs without a better AP; 0: never."""
    batch: Annotated[int, Range(1, 2**16, besides=-1)] = 16
    """Images per batch over all devices; -1: the largest that fits into one CUDA device."""
    accumulate: Count = 1
    """Batches per optimizer step: batch=4 accumulate=4 trains like batch=16."""
    imgsz: ImageSize | None = None
    """Input size in pixels, one number or height,width; multiples of 32; None: 640, or that of the
    architecture."""
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    """Random seed."""

    device: str | None = None
    """cpu, cuda, cuda:1, mps, 0, or 0,1 for both GPUs; None: cuda, then mps, then cpu."""
    workers: Workers | None = None
    """Data loading processes per device, 0: none; None: one per core, at most 4."""
    cache: Annotated[str, OneOf(("off", "ram", "disk"))] = "off"
    """Cache decoded training images in memory (ram) or RTDETR_HOME/cache (disk); off: none."""
    amp: Annotated[str, OneOf(("auto", "bf16", "fp16", "off"))] = "auto"
    """Mixed precision, boxes and loss in float32; auto: bf16 or fp16 where the device is fast."""
    compile: bool = False
    """Compile backbone and encoder (torch.compile), for long runs; step 1 takes minutes."""

    name: str = "train"
    val: bool = True
    """Validate; false: no metrics, and best.pt holds the weights of the last epoch."""
    val_fraction: Annotated[float, Range(0.001, 0.999)] | None = None
    """Share of the training images to hold out for validation, drawn with the seed."""
    val_every: Count = 1
    """Validate every N epochs and after the last one."""
    save_steps: Count = 1000
    """Save the training state every N steps and after each epoch."""
    save_period: CountFromZero = 0
    """Save the weights every N epochs as epochN.pt; 0: best.pt and last.pt only."""
    plots: bool = True
    """Plot curves and sample batches into the run folder."""
    ultralytics_csv: bool = False
    """Add the columns of Ultralytics to results.csv; its time is then the sum over epochs."""
    json: bool = False
    """Print the final metrics as JSON."""
    logger: tuple[Annotated[str, OneOf(("tensorboard", "wandb", "mlflow"))], ...] | None = None
    """Also log each epoch to tensorboard, wandb, mlflow, or several of them."""

    optimizer: Annotated[str, OneOf(("adamw", "muon", "sgd"), OTHER_OPTIMIZERS)] = "adamw"
    """adamw, muon (linear layers; AdamW for the rest) or sgd (requires lr)."""
    lr: NonNegative | None = None
    """Learning rate of all parameters outside the backbone."""
    backbone_lr: NonNegative | None = None
    """Learning rate of the backbone."""
    lr_scale: NonNegative = 1.0
    """Factor on the official lr and backbone_lr, which apply to pretrained models by default."""
    momentum: Annotated[float, Range(0.001, 0.9999)] = 0.9
    """Momentum of sgd, or beta1 of adamw and of the AdamW part of muon."""
    weight_decay: NonNegative = 1e-4
    """Weight decay; normalization layers have none."""
    warmup_steps: CountFromZero | None = None
    """Number of linear warm-up steps."""
    warmup_epochs: Annotated[float, Range(0, 10**6)] | None = None
    """Length of the warm-up in epochs, instead of warmup_steps."""
    schedule: Annotated[str, OneOf(("constant", "cosine", "flat_cosine"))] | None = None
    """Learning rate after the warm-up: constant, cosine (to 1 %) or flat_cosine (to a half)."""
    clip_norm: NonNegative = 0.1
    """Maximum gradient norm; 0: no clipping."""
    ema_decay: Fraction | None = None
    """Decay of the exponential moving average of the weights; 0: no average."""
    ema_ramp: Count | None = None
    """Number of steps over which ema_decay ramps up."""
    loss: Annotated[str, OneOf(("vfl", "mal"))] | None = None
    """Classification loss: vfl (varifocal) or mal (matchability-aware, DEIM)."""
    iou_matching: Fraction | None = None
    """Final share of the epochs matched by class score times IoU^4 (DEIMv2); 0: never."""

    teacher: str | None = None
    """Teacher whose map F5 imitates (RT-DETRv4): weights of a network, or an .onnx file that gives
    one map."""
    distill: NonNegative | None = None
    """Weight of the distillation; None: that of the architecture, 5 to 20."""

    num_denoising: Annotated[int, Range(0, 10_000)] = 100
    """Number of denoising queries over all groups; 0: no denoising."""
    label_noise: Fraction = 0.5
    """Denoising label noise: half of this fraction of the labels is resampled."""
    box_noise: NonNegative = 1.0
    """Denoising box noise, as a fraction of half the box size."""

    photometric: Fraction | None = None
    """Probability of photometric distortion (brightness, contrast, saturation, hue)."""
    zoom_out: Fraction | None = None
    """Probability of placing the image on a canvas of up to four times its sides."""
    iou_crop: Fraction | None = None
    """Probability of a crop with a minimum overlap with a box."""
    flip: Fraction = 0.5
    """Probability of a horizontal flip."""
    multi_scale: Annotated[bool | float, Range(0, 0.9)] | None = None
    """Sample the input size of each batch: 0.25 or true for 0.75 to 1.25 times imgsz."""
    clean_epochs: CountFromZero | None = None
    """Number of final epochs without strong augmentation and multi-scale."""
    restart: bool = False
    """Start the last clean_epochs from the best weights so far (D-FINE, DEIM)."""
    restart_ema_decay: Fraction | None = None
    """ema_decay after the restart; None: ema_decay, at most that of the architecture's recipe."""
    mosaic: Fraction = 0.0
    """Probability of a mosaic of four images instead of zoom-out and IoU crop (DEIM)."""
    mixup: Fraction = 0.0
    """Probability of blending the images of a batch in pairs (DEIM)."""
    dense_epochs: tuple[CountFromZero, CountFromZero] | None = None
    """Epochs after which mosaic and mixup start (no strong augmentation before) and stop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.data and not self.resume and is_architecture(self.model):
            raise UsageError(
                "train needs data=, for example data=coco8.yaml; `rtdetr train --help` lists all "
                "keys"
            )
        if self.pretrained and not is_architecture(self.model):
            raise UsageError(
                f"train: pretrained={self.pretrained} has no effect with model={self.model},"
                " which brings its own weights; give an architecture (.yaml) as model"
            )
        refuse_without_effect(self)


WHOLE_BACKBONE = {"backbone", "4"}
"""Values of `freeze` that freeze the entire backbone."""


def refuse_without_effect(settings: TrainSettings) -> None:
    """Reject a key that has no effect given the others.

    Raises:
        UsageError: a key has no effect.
    """
    reason = _reason(settings)
    if reason:
        raise UsageError(f"train: {reason}")


def _reason(settings: TrainSettings) -> str | None:
    epochs = f"has no effect with epochs={settings.epochs}"
    if settings.warmup_steps is not None and settings.warmup_epochs is not None:
        return "warmup_steps and warmup_epochs are the same length; give one of them"
    if settings.save_period > settings.epochs:
        return f"save_period={settings.save_period} {epochs}; give less, or 0"
    if settings.backbone_lr is not None and settings.freeze in WHOLE_BACKBONE:
        return f"backbone_lr has no effect with freeze={settings.freeze}"
    if settings.optimizer == "sgd" and settings.lr is None and not settings.resume:
        return "optimizer=sgd needs lr=; the recipe's learning rates are made for AdamW"
    checks = (_validation_reason, _teacher_reason, _restart_reason, _dense_reason)
    return next((reason for check in checks if (reason := check(settings))), None)


def _validation_reason(settings: TrainSettings) -> str | None:
    """Explain why a key that needs metrics has no effect with val=false."""
    idle = {"val_fraction": None, "patience": 0, "val_every": 1, "json": False, "restart": False}
    for key, value in idle.items():
        given = getattr(settings, key)
        if not settings.val and given != value:
            shown = "true" if given is True else given
            return f"{key}={shown} has no effect with val=false, which gives no metrics"
    return None


def _teacher_reason(settings: TrainSettings) -> str | None:
    """Explain why teacher or distill has no effect."""
    if settings.distill is not None and settings.teacher is None:
        return f"distill={settings.distill:g} has no effect without teacher"
    if settings.teacher is not None and settings.compile:
        return "teacher cannot be combined with compile=true, which hides F5; give compile=false"
    return None


def _restart_reason(settings: TrainSettings) -> str | None:
    """Explain why restart or restart_ema_decay has no effect."""
    if not settings.restart:
        given = settings.restart_ema_decay
        return None if given is None else f"restart_ema_decay={given:g} needs restart=true"
    if settings.clean_epochs == 0:
        return "restart=true has no effect with clean_epochs=0, the epochs that it would precede"
    if settings.clean_epochs is not None and settings.clean_epochs >= settings.epochs:
        return (
            f"restart=true has no effect with clean_epochs={settings.clean_epochs} of "
            f"{settings.epochs} epochs, as none precedes them"
        )
    return None


def _dense_reason(settings: TrainSettings) -> str | None:
    """Explain why mosaic, mixup or dense_epochs has no effect."""
    if settings.mixup and settings.batch == 1:
        return "mixup has no effect with batch=1, as it blends images of a batch; give mixup=0"
    if settings.dense_epochs is None:
        return None
    first, end = settings.dense_epochs
    if settings.time is not None:
        return "dense_epochs has no effect with time, which sets the number of epochs"
    shown = f"dense_epochs={first},{end}"
    if not settings.mosaic and not settings.mixup:
        return f"{shown} has no effect without mosaic or mixup"
    if first >= end or first >= settings.epochs:
        return f"{shown} leaves no epoch of {settings.epochs} with mosaic and mixup"
    return None
