"""Settings of `rtdetr train`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from rtdetr_cli.config.fields import (
    Count,
    CountFromZero,
    Fraction,
    ImageSize,
    NonNegative,
    OneOf,
    Range,
    Workers,
)
from rtdetr_cli.config.model_path import is_architecture
from rtdetr_cli.config.settings.shared import Settings
from rtdetr_cli.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Settings):
    """Train or fine-tune a detector."""

    mode = "train"
    groups: ClassVar[dict[str, str]] = {
        "model": "What to train",
        "epochs": "How long, how large",
        "device": "Machine",
        "project": "Run folder and output",
        "optimizer": "Optimizer (None: from the architecture's recipe and the length of the run)",
        "num_denoising": "Denoising",
        "photometric": "Augmentation (None: from the recipe)",
    }

    model: str = "rtdetr-l.pt"
    """Weights to fine-tune (.pt) or an architecture (.yaml)."""
    data: str | None = None
    """Data set: YAML, folder or COCO json; needed unless a run is resumed."""
    pretrained: str | None = None
    """Start of a .yaml architecture: weights, or `backbone` (ImageNet's); None: from scratch."""
    resume: bool | str = False
    """Continue a run that was stopped: true for the newest, or the path of its last.pt."""
    recipe: str | None = None
    """Settings to start from: a name of cfg/recipes or a .yaml; other keys win over it."""
    freeze: str | None = None
    """Parts not to train: number of leading backbone stages, backbone, or names; 0 none at all."""
    classes: tuple[CountFromZero, ...] | None = None
    """Class indices to train and validate on, for example 0,2,5; None: all."""
    single_cls: bool = False
    """Treat all classes as one, named object."""
    fraction: Annotated[float, Range(0.001, 1)] = 1.0
    """Share of the training images to use, drawn by the seed."""

    epochs: Count = 72
    """Passes over the training images."""
    time: Annotated[float, Range(0, 10**6)] | None = None
    """Hours that the run may take: sets epochs, and with them the schedule, by their pace."""
    patience: CountFromZero = 0
    """Epochs without a better AP after which the run ends; 0 is never."""
    batch: Annotated[int, Range(1, 2**16, besides=-1)] = 16
    """Images per batch, shared by all devices; -1: as many as fit the memory of one CUDA device."""
    accumulate: Count = 1
    """Batches whose gradients make one step: batch=4 accumulate=4 learns as batch=16."""
    imgsz: ImageSize = 640
    """Input size in pixels, one number or height,width; multiples of 32."""
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    """Start of every random generator."""

    device: str | None = None
    """cpu, cuda, cuda:1, mps, 0, or 0,1 to train on both; None: cuda, then mps, then cpu."""
    workers: Workers | None = None
    """Processes that load images for each device, 0 is none; None: one per core, at most 4."""
    cache: Annotated[str, OneOf(("off", "ram", "disk"))] = "off"
    """Keep decoded training images in memory (ram) or in RTDETR_HOME/cache (disk); off: decode."""
    amp: Annotated[str, OneOf(("auto", "bf16", "fp16", "off"))] = "auto"
    """Precision of the network, boxes and loss are float32: auto takes bf16 or fp16 where fast."""
    compile: bool = False
    """Compile backbone and encoder (torch.compile): minutes at the first step, for long runs."""

    project: str = "runs"
    """Folder of all runs."""
    name: str = "train"
    """Folder of this run; a number is added where it exists."""
    exist_ok: bool = False
    """Write into an existing run folder."""
    val_every: Count = 1
    """Validate after every so many epochs, and after the last one."""
    save_steps: Count = 1000
    """Save all that resuming needs after every so many steps, and after each epoch."""
    save_period: CountFromZero = 0
    """Keep the weights of every so many epochs as epochN.pt; 0 keeps best.pt and last.pt only."""
    plots: bool = True
    """Draw curves and sample batches into the run folder."""
    json: bool = False
    """Print the final metrics as JSON."""
    logger: tuple[Annotated[str, OneOf(("tensorboard", "wandb", "mlflow"))], ...] | None = None
    """Who also gets each epoch's numbers: tensorboard, wandb, mlflow, or several of them."""

    optimizer: Annotated[str, OneOf(("adamw", "muon", "sgd"))] = "adamw"
    """adamw, muon (for the linear layers, AdamW for the rest) or sgd (needs lr)."""
    lr: NonNegative | None = None
    """Learning rate of everything but the backbone."""
    backbone_lr: NonNegative | None = None
    """Learning rate of the backbone."""
    lr_scale: NonNegative = 1.0
    """Multiplies the official lr and backbone_lr that a pretrained model gets where left open."""
    weight_decay: NonNegative = 1e-4
    """Decay of the weights; norms have none."""
    warmup_steps: CountFromZero | None = None
    """Steps of linear warm-up."""
    schedule: Annotated[str, OneOf(("constant", "cosine", "flat_cosine"))] | None = None
    """Learning rate after the warm-up: constant, cosine (to 1 %) or flat_cosine (to a half)."""
    clip_norm: NonNegative = 0.1
    """Largest norm of the gradient; 0 turns clipping off."""
    ema_decay: Fraction | None = None
    """Decay of the moving average of the weights; 0 turns it off."""
    ema_ramp: Count | None = None
    """Steps over which the decay grows to its full value."""
    loss: Annotated[str, OneOf(("vfl", "mal"))] = "vfl"
    """Classification loss: varifocal, or DEIM's matchability-aware."""

    num_denoising: Annotated[int, Range(0, 10_000)] = 100
    """Denoising queries, shared by all groups; 0 turns denoising off."""
    label_noise: Fraction = 0.5
    """Half of this share of the denoising labels is drawn anew."""
    box_noise: NonNegative = 1.0
    """Shift of denoising boxes, in half sizes of the box."""

    photometric: Fraction | None = None
    """Probability of changing brightness, contrast, saturation and hue."""
    zoom_out: Fraction | None = None
    """Probability of placing the image on a canvas of up to four times its sides."""
    iou_crop: Fraction | None = None
    """Probability of a crop that keeps an overlap with a box."""
    flip: Fraction = 0.5
    """Probability of a left-right flip."""
    multi_scale: bool | None = None
    """Draw the input size of each batch from 0.75 to 1.25 times imgsz."""
    clean_epochs: CountFromZero | None = None
    """Last epochs without strong augmentation and multi-scale."""
    mosaic: Fraction = 0.0
    """Probability of four images in one, in place of zoom-out and IoU crop (DEIM)."""
    mixup: Fraction = 0.0
    """Probability that the images of a batch are laid over one another, two and two (DEIM)."""
    dense_epochs: tuple[CountFromZero, CountFromZero] | None = None
    """Epochs after which mosaic and mixup begin (no strong augmentation before) and end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.data and not self.resume:
            raise UsageError("train needs data=; `rtdetr train --help` lists all keys")
        if self.pretrained and not is_architecture(self.model):
            raise UsageError(
                f"train: pretrained={self.pretrained} has no effect with model={self.model},"
                " which brings its own weights; give an architecture (.yaml) as model"
            )
        refuse_without_effect(self)


WHOLE_BACKBONE = {"backbone", "4"}
"""Values of `freeze` that leave nothing of the backbone to train."""


def refuse_without_effect(settings: TrainSettings) -> None:
    """Look for a key that the other keys make void.

    Raises:
        UsageError: there is one.
    """
    reason = _reason(settings)
    if reason:
        raise UsageError(f"train: {reason}")


def _reason(settings: TrainSettings) -> str | None:
    epochs = f"has no effect with epochs={settings.epochs}"
    if settings.patience >= settings.epochs:
        return f"patience={settings.patience} {epochs}; give less, or 0"
    if settings.save_period > settings.epochs:
        return f"save_period={settings.save_period} {epochs}; give less, or 0"
    if settings.backbone_lr is not None and settings.freeze in WHOLE_BACKBONE:
        return f"backbone_lr has no effect with freeze={settings.freeze}"
    if settings.optimizer == "sgd" and settings.lr is None and not settings.resume:
        return "optimizer=sgd needs lr=; the recipe's learning rates are made for AdamW"
    return _dense_reason(settings)


def _dense_reason(settings: TrainSettings) -> str | None:
    """What is void of mosaic, mixup and their epochs."""
    if settings.mixup and settings.batch == 1:
        return "mixup has no effect with batch=1, as it mixes the images of a batch; give mixup=0"
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
