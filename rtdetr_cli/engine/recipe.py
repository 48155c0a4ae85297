"""The training recipe: the official v2 one, scaled to the length of the run.

The official constants are made for half a million steps from an ImageNet backbone. A run of a few
hundred steps needs a shorter warm-up and a shorter memory of the moving average, and a network
without pretrained weights needs a higher learning rate, the same one for its backbone. Whatever
the user sets is taken as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeVar

from rtdetr_cli.config.model import RecipeConfig
from rtdetr_cli.config.settings import TrainSettings, size_hw
from rtdetr_cli.data.loader import multi_scale_sizes
from rtdetr_cli.data.transforms import AugmentConfig

N = TypeVar("N", int, float)

OFFICIAL_LR = 1e-4
OFFICIAL_WARMUP = 2000
OFFICIAL_EMA_RAMP = 2000
OFFICIAL_EMA_DECAY = 0.9999
LONG_RUN = 100_000
"""Steps from which on the official constants stand as they are."""
SCRATCH_LR = 1e-3
"""For networks without pretrained weights (bccd, 312 steps: AP .50, docs/train.md)."""
HARD_CROPS_FROM = 20_000
"""Steps that a network from scratch needs before zoom-out and IoU crop pay."""
FINAL_LR_SHARE = 0.01


@dataclass(frozen=True)
class Recipe:
    """Every number that training uses, resolved."""

    total_steps: int
    """Steps of the whole run."""
    lr: float
    """Learning rate of encoder and decoder."""
    backbone_lr: float
    """Learning rate of the backbone."""
    weight_decay: float
    """AdamW's decay; one-dimensional parameters have none."""
    warmup_steps: int
    """Steps of linear warm-up."""
    schedule: str
    """`constant` or `cosine` (down to 1 %) after the warm-up."""
    clip_norm: float
    """Largest gradient norm; 0 is none."""
    ema_decay: float
    """Decay of the moving average; 0 is none."""
    ema_ramp: int
    """Steps in which the decay grows to 63 % of its value."""
    freeze_stem: bool
    """The backbone's stem stays as it is."""
    freeze_backbone_norm: bool
    """The backbone's BatchNorms stay as they are."""
    augment: AugmentConfig
    """Probabilities of the augmentations."""
    multi_scale: tuple[tuple[int, int], ...] | None
    """Sizes (height, width) that batches are drawn from."""
    clean_epochs: int
    """Last epochs without strong augmentation."""

    def lr_share(self, step: int) -> float:
        """Share of the learning rate at a step, counted from 0."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        if self.schedule == "constant":
            return warm
        decay = 0.5 * (1 + math.cos(math.pi * step / max(self.total_steps, 1)))
        return warm * (FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * decay)

    def describe(self, arithmetic: str = "float32") -> str:
        """Two lines for the user.

        Args:
            arithmetic: what the network computes in.
        """
        augment = self.augment
        sizes = "one size"
        if self.multi_scale:
            sizes = f"{max(self.multi_scale[0])} to {max(self.multi_scale[-1])} px"
        frozen = ", stem frozen" if self.freeze_stem else ""
        frozen += ", backbone norms frozen" if self.freeze_backbone_norm else ""
        return (
            f"recipe: AdamW lr {self.lr:g}, backbone {self.backbone_lr:g}, weight decay "
            f"{self.weight_decay:g}, clip {self.clip_norm:g}, {self.schedule} after "
            f"{self.warmup_steps} of {self.total_steps} steps, EMA {self.ema_decay:g} with ramp "
            f"{self.ema_ramp}{frozen}, {arithmetic}\n"
            f"augmentation: photometric {augment.photometric:g}, zoom-out {augment.zoom_out:g}, "
            f"IoU crop {augment.iou_crop:g}, flip {augment.flip:g}, {sizes}; off in the last "
            f"{self.clean_epochs} epochs"
        )


def resolve_recipe(
    settings: TrainSettings, official: RecipeConfig, steps_per_epoch: int, is_pretrained: bool
) -> Recipe:
    """Fill in what the user left open.

    Args:
        settings: the user's keys; None means the recipe's choice.
        official: what the architecture's file says.
        steps_per_epoch: batches in an epoch.
        is_pretrained: whether the backbone starts from trained weights.
    """
    total = steps_per_epoch * settings.epochs
    lr = _given(settings.lr, OFFICIAL_LR if is_pretrained else SCRATCH_LR)
    multi_scale = official.multi_scale if settings.multi_scale is None else settings.multi_scale
    default = AugmentConfig()
    if not is_pretrained and total < HARD_CROPS_FROM:
        default = replace(default, zoom_out=0.0, iou_crop=0.0)
    return Recipe(
        total_steps=total,
        lr=lr,
        backbone_lr=_given(settings.backbone_lr, official.backbone_lr if is_pretrained else lr),
        weight_decay=settings.weight_decay,
        warmup_steps=_given(settings.warmup_steps, min(OFFICIAL_WARMUP, total // 20)),
        schedule=settings.schedule or ("constant" if total >= LONG_RUN else "cosine"),
        clip_norm=settings.clip_norm,
        ema_decay=_given(settings.ema_decay, _scaled_ema_decay(total)),
        ema_ramp=_given(settings.ema_ramp, min(OFFICIAL_EMA_RAMP, max(1, total // 100))),
        freeze_stem=is_pretrained and official.freeze_stem,
        freeze_backbone_norm=is_pretrained and official.freeze_backbone_norm,
        augment=AugmentConfig(
            photometric=_given(settings.photometric, default.photometric),
            zoom_out=_given(settings.zoom_out, default.zoom_out),
            iou_crop=_given(settings.iou_crop, default.iou_crop),
            flip=settings.flip,
        ),
        multi_scale=multi_scale_sizes(size_hw(settings.imgsz)) if multi_scale else None,
        clean_epochs=_given(settings.clean_epochs, max(1, round(settings.epochs * 0.05))),
    )


def _scaled_ema_decay(total_steps: int) -> float:
    """An average over a twentieth of the run, at most the official 10,000 steps."""
    return min(OFFICIAL_EMA_DECAY, 1 - 1 / max(2.0, total_steps / 20))


def _given(value: N | None, otherwise: N) -> N:
    return otherwise if value is None else value
