"""Keys of `rtdetr train` that have no effect beside others: each is refused with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtdetr_cli.core.errors import UsageError

if TYPE_CHECKING:
    from rtdetr_cli.config.settings.modes import TrainSettings

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
