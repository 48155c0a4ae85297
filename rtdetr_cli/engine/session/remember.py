"""Continue with the data set, image size and batch that the weights were trained with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from rtdetr_cli.config.model_path import is_architecture, is_exported
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.config.settings.val import ValSettings
from rtdetr_cli.core.console import say, warn
from rtdetr_cli.core.errors import RTDETRError, UsageError
from rtdetr_cli.core.files import user_path
from rtdetr_cli.data.splits import VAL_IMAGES, load_data
from rtdetr_cli.weights.catalog import find_published
from rtdetr_cli.weights.reader import read_trained_on
from rtdetr_cli.weights.store import resolve_weights
from rtdetr_cli.weights.trained_on import TrainedOn

S = TypeVar("S", TrainSettings, ValSettings)


def with_remembered(settings: S) -> S:
    """Settings with a data set: as given, or that of the weights, with its image size and batch.

    Keys that the user gave stay. A call that names its data set takes nothing from the weights.

    Raises:
        UsageError: the weights do not say what they were trained on, or it is not on this machine.
        WeightsError: the model is missing, damaged or unsafe.
    """
    if settings.data or (isinstance(settings, TrainSettings) and settings.resume):
        return settings
    record = remembered(settings.model) or _published_on(settings)
    if record is None:
        raise UsageError(
            f"{settings.mode} needs data=, for example data=coco8.yaml; {settings.model} does not "
            "say what it was trained on"
        )
    _check_data(record.data, settings)
    changes = _changes(settings, record)
    shown = " ".join(f"{key}={_text(value)}" for key, value in changes.items())
    say(f"{shown} (from {Path(settings.model).name})")
    if isinstance(settings, ValSettings) and settings.split == "val":
        _report_held_out(settings.model, record.data)
    return replace(settings, **changes)


def remembered(model: str) -> TrainedOn | None:
    """What a file was trained on; None if it does not say, as published and exported ones."""
    if is_architecture(model) or is_exported(model) or _is_published(model):
        return None
    return read_trained_on(resolve_weights(model))


def _is_published(model: str) -> bool:
    return not user_path(model).exists() and find_published(model) is not None


def _published_on(settings: TrainSettings | ValSettings) -> TrainedOn | None:
    """Published weights are validated on what they were trained on; who trains has own data."""
    entry = find_published(settings.model) if _is_published(settings.model) else None
    is_coco = entry is not None and entry.data.endswith("COCO")  # or Objects365, then COCO
    return TrainedOn("coco.yaml") if is_coco and isinstance(settings, ValSettings) else None


def _check_data(data: str, settings: TrainSettings | ValSettings) -> None:
    try:
        load_data(data, settings.download)
    except RTDETRError as error:
        raise UsageError(
            f"{settings.model} was trained on data={data}, which cannot be used here ({error}); "
            "give data="
        ) from None


def _report_held_out(model: str, data: str) -> None:
    """Warn that the data set alone does not show which images val_fraction has held out."""
    if _is_published(model):
        return
    held_out = resolve_weights(model).parent.parent / VAL_IMAGES
    if held_out.is_file():
        warn(
            f"val_fraction held out the images that {held_out} lists; all others of data={data} "
            "were trained on, and an AP that includes them is too high"
        )


def _changes(settings: TrainSettings | ValSettings, record: TrainedOn) -> dict[str, Any]:
    """The recorded keys that the user has left at their defaults, and that differ from them."""
    size = record.imgsz if isinstance(settings, TrainSettings) else None  # val has the model's own
    recorded: dict[str, Any] = {
        "data": record.data,
        "imgsz": size[0] if size and size[0] == size[1] else size,
        "batch": record.batch,
        "single_cls": record.single_cls,
        "classes": record.classes,
    }
    default = type(settings)
    return {
        key: value
        for key, value in recorded.items()
        if key not in settings.given
        and getattr(settings, key) == getattr(default, key)
        and value not in (None, getattr(default, key))
    }


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
