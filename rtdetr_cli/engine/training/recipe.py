"""The training recipe: the official v2 one, scaled to the length of the run.

The official constants are for half a million steps from an ImageNet backbone. A run of a few
hundred steps needs a shorter warm-up and a faster moving average, and a network without pretrained
weights a higher learning rate, the same one for its backbone. Values set by the user are kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeVar

from rtdetr_cli.config.model import RecipeConfig
from rtdetr_cli.config.model_path import is_architecture
from rtdetr_cli.config.settings.modes import size_hw
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.data.loader import multi_scale_sizes
from rtdetr_cli.data.transforms import AugmentConfig

N = TypeVar("N", int, float, str, tuple[int, int])

OFFICIAL_WARMUP = 2000
OFFICIAL_EMA_RAMP = 2000
OFFICIAL_EMA_DECAY = 0.9999
OFFICIAL_SPREAD = 0.25
"""Input sizes from 3/4 to 5/4."""
LONG_RUN = 100_000
"""Steps from which on the official constants are used unchanged."""
SCRATCH_LR = 1e-3
"""For networks without pretrained weights (bccd, 312 steps: AP .50, docs/train.md)."""
HARD_CROPS_FROM = 20_000
"""Steps that a run from scratch needs for zoom-out and IoU crop to improve AP."""
FINAL_LR_SHARE = 0.01
FLAT_COSINE_SHARE = 0.5
"""Final share of flat_cosine (lr_gamma of DEIM, arXiv 2412.04234, engine/optim/lr_scheduler.py)."""
OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon", "sgd": "SGD"}


@dataclass(frozen=True)
class Recipe:
    """Every hyperparameter of a training, resolved."""

    total_steps: int
    """Steps of the whole run."""
    optimizer: str
    """`adamw`, `muon` or `sgd`."""
    lr: float
    """Learning rate of encoder and decoder."""
    backbone_lr: float
    """Learning rate of the backbone."""
    weight_decay: float
    """Weight decay; none for one-dimensional parameters."""
    momentum: float
    """Momentum of SGD, beta1 of AdamW."""
    warmup_steps: int
    """Steps of linear warm-up."""
    schedule: str
    """`constant`, `cosine` (down to 1 %) or `flat_cosine` (to a half) after the warm-up."""
    tail_steps: int
    """Steps of the last epochs without strong augmentation, at the end of flat_cosine."""
    clip_norm: float
    """Maximum gradient norm; 0 for no clipping."""
    ema_decay: float
    """Decay of the moving average; 0 for no averaging."""
    ema_ramp: int
    """Steps in which the decay grows to 63 % of its value."""
    freeze_stem: bool
    """Freeze the stem of the backbone."""
    freeze_backbone_norm: bool
    """Freeze the BatchNorms of the backbone."""
    freeze: str | None
    """Parts frozen by the user in addition."""
    augment: AugmentConfig
    """Probabilities of the augmentations."""
    size_hw: tuple[int, int]
    """Height and width of the input."""
    multi_scale: tuple[tuple[int, int], ...] | None
    """Sizes (height, width) from which each batch draws one."""
    clean_epochs: int
    """Last epochs without strong augmentation."""
    restart_epoch: int | None
    """Epochs after which the network starts again from the best weights; None for never."""
    restart_ema_decay: float
    """Decay of the moving average from then on."""
    dense_epochs: tuple[int, int] | None
    """Range of epochs with mosaic and mixup; None for no such epochs."""
    loss: str
    """Classification loss, `vfl` or `mal`."""
    refinement: bool
    """FGL, DDF and the union of matches, if the network predicts distributions."""
    distill: float
    """Weight of the distillation loss."""
    iou_matching_epoch: int
    """Epochs after which boxes are matched by score and IoU alone; the run's number for never."""

    def ema_decay_in(self, epoch: int) -> float:
        """Decay of the moving average in an epoch, counted from 0."""
        is_restarted = self.restart_epoch is not None and epoch >= self.restart_epoch
        return self.restart_ema_decay if is_restarted else self.ema_decay

    def lr_share(self, step: int) -> float:
        """Learning rate of a step, counted from 0, as a share of the full one."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        if self.schedule == "constant":
            return warm
        if self.schedule == "flat_cosine":
            return warm * self._flat_cosine(step)
        decay = 0.5 * (1 + math.cos(math.pi * step / max(self.total_steps, 1)))
        return warm * (FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * decay)

    def _flat_cosine(self, step: int) -> float:
        """DEIM's schedule: flat for half of the run, a cosine until the last epochs, flat again.

        DEIM stays flat for four more epochs, which would leave no time to decay in short runs,
        and its warm-up is quadratic.
        """
        flat, end = self.total_steps // 2, self.total_steps - self.tail_steps
        done = min(max((step - flat) / max(end - flat, 1), 0.0), 1.0)
        decay = 0.5 * (1 + math.cos(math.pi * done))
        return FLAT_COSINE_SHARE + (1 - FLAT_COSINE_SHARE) * decay

    def describe(self, arithmetic: str = "float32") -> str:
        """Two lines for the user.

        Args:
            arithmetic: number type of the forward pass.
        """
        augment = self.augment
        sizes = "one size"
        if self.multi_scale and self.multi_scale[0] != self.multi_scale[-1]:
            sizes = f"{max(self.multi_scale[0])} to {max(self.multi_scale[-1])} px"
        last = f"{self.clean_epochs} epochs" if self.clean_epochs != 1 else "epoch"
        restart = ", which start from the best weights" if self.restart_epoch is not None else ""
        frozen = ", stem frozen" if self.freeze_stem else ""
        frozen += ", backbone norms frozen" if self.freeze_backbone_norm else ""
        frozen += f", freeze={self.freeze}" if self.freeze else ""
        return (
            f"recipe: {OPTIMIZERS[self.optimizer]} lr {self.lr:g}, "
            f"backbone {self.backbone_lr:g}, weight decay {self.weight_decay:g}, "
            f"clip {self.clip_norm:g}, {self.schedule} after {self.warmup_steps} of "
            f"{self.total_steps} steps, EMA {self.ema_decay:g} with ramp "
            f"{self.ema_ramp}, loss {self.loss}{frozen}, {arithmetic}\n"
            f"augmentation: photometric {augment.photometric:g}, zoom-out {augment.zoom_out:g}, "
            f"IoU crop {augment.iou_crop:g}, flip {augment.flip:g}, {sizes}; off in the last "
            f"{last}{restart}{self._describe_dense()}"
        )

    def _describe_dense(self) -> str:
        if self.dense_epochs is None:
            return ""
        first, end = self.dense_epochs
        return (
            f"; mosaic {self.augment.mosaic:g} and mixup {self.augment.mixup:g} in epochs "
            f"{first + 1} to {end}, no strong augmentation before"
        )


def resolve_recipe(
    settings: TrainSettings, official: RecipeConfig, steps_per_epoch: int, is_pretrained: bool
) -> Recipe:
    """Fill in what the user has not set.

    Args:
        settings: the user's keys; None is chosen here.
        official: the recipe in the architecture's file.
        steps_per_epoch: steps of the optimizer in an epoch.
        is_pretrained: whether the backbone starts from trained weights.
    """
    total = steps_per_epoch * settings.epochs
    size = size_hw(settings.imgsz or official.imgsz)
    iou_matching = _given(settings.iou_matching, official.iou_matching)
    lr, backbone_lr = _learning_rates(settings, official, is_pretrained)
    spread = _spread(_given(settings.multi_scale, official.multi_scale))
    clean_epochs = _given(settings.clean_epochs, max(1, round(settings.epochs * 0.05)))
    ema_decay = _given(settings.ema_decay, _scaled_ema_decay(total))
    keeps_official = is_pretrained and settings.freeze != "0"
    return Recipe(
        total_steps=total,
        optimizer=settings.optimizer,
        lr=lr,
        backbone_lr=backbone_lr,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
        warmup_steps=_warmup_steps(settings, steps_per_epoch),
        schedule=settings.schedule or ("constant" if total >= LONG_RUN else "cosine"),
        tail_steps=steps_per_epoch * clean_epochs,
        clip_norm=settings.clip_norm,
        ema_decay=ema_decay,
        ema_ramp=_given(settings.ema_ramp, min(OFFICIAL_EMA_RAMP, max(1, total // 100))),
        freeze_stem=keeps_official and official.freeze_stem,
        freeze_backbone_norm=keeps_official and official.freeze_backbone_norm,
        freeze=None if settings.freeze == "0" else settings.freeze,
        augment=_augment(settings, hard_crops=is_pretrained or total >= HARD_CROPS_FROM),
        size_hw=size,
        multi_scale=multi_scale_sizes(size, spread) if spread else None,
        clean_epochs=clean_epochs,
        restart_epoch=_restart_epoch(settings, clean_epochs),
        restart_ema_decay=_given(
            settings.restart_ema_decay, min(ema_decay, official.restart_ema_decay)
        ),
        dense_epochs=_dense_epochs(settings),
        loss=_given(settings.loss, official.loss),
        refinement=official.refinement,
        distill=_given(settings.distill, official.distill),
        iou_matching_epoch=settings.epochs - round(settings.epochs * iou_matching),
    )


def starts_pretrained(settings: TrainSettings) -> bool:
    """Whether the backbone starts from trained weights."""
    return settings.pretrained is not None or not is_architecture(settings.model)


def _learning_rates(
    settings: TrainSettings, official: RecipeConfig, is_pretrained: bool
) -> tuple[float, float]:
    """That of the network, and that of its backbone."""
    scale = settings.lr_scale  # does not apply to the learning rate from scratch
    if official.lr_batch is not None and settings.optimizer != "sgd":
        scale *= max(settings.batch, 1) * settings.accumulate / official.lr_batch
    lr = _given(settings.lr, scale * official.lr if is_pretrained else SCRATCH_LR)
    backbone_lr = scale * official.backbone_lr if is_pretrained else lr
    if (
        settings.optimizer == "sgd" and is_pretrained
    ):  # official rates are AdamW's; keep their ratio
        backbone_lr *= lr / official.lr
    return lr, _given(settings.backbone_lr, backbone_lr)


def _restart_epoch(settings: TrainSettings, clean_epochs: int) -> int | None:
    """The epoch at which the clean ones begin, unless there are none before them."""
    first = settings.epochs - clean_epochs
    return first if settings.restart and 0 < first < settings.epochs else None


def _warmup_steps(settings: TrainSettings, steps_per_epoch: int) -> int:
    """The warm-up of the user, or the official one, at most a twentieth of the run."""
    if settings.warmup_epochs is not None:
        return round(settings.warmup_epochs * steps_per_epoch)
    total = steps_per_epoch * settings.epochs
    return _given(settings.warmup_steps, min(OFFICIAL_WARMUP, total // 20))


def _spread(multi_scale: float) -> float:
    """The largest change of the input size as a fraction of it; true: the official one."""
    return OFFICIAL_SPREAD if multi_scale is True else float(multi_scale)


def _augment(settings: TrainSettings, hard_crops: bool) -> AugmentConfig:
    """The official probabilities unless given; zoom-out and IoU crop only in long runs."""
    default = AugmentConfig()
    if not hard_crops:
        default = replace(default, zoom_out=0.0, iou_crop=0.0)
    return AugmentConfig(
        photometric=_given(settings.photometric, default.photometric),
        zoom_out=_given(settings.zoom_out, default.zoom_out),
        iou_crop=_given(settings.iou_crop, default.iou_crop),
        flip=settings.flip,
        mosaic=settings.mosaic,
        mixup=settings.mixup,
    )


def _dense_epochs(settings: TrainSettings) -> tuple[int, int] | None:
    """As in DEIM: half of the run, after four epochs or the first fifteenth of a short run."""
    if not settings.mosaic and not settings.mixup:
        return None
    first = min(4, settings.epochs // 15)
    return _given(settings.dense_epochs, (first, first + (settings.epochs + 1) // 2))


def _scaled_ema_decay(total_steps: int) -> float:
    """Average over a twentieth of the run, at most the official 10,000 steps."""
    return min(OFFICIAL_EMA_DECAY, 1 - 1 / max(2.0, total_steps / 20))


def _given(value: N | None, default: N) -> N:
    return default if value is None else value
