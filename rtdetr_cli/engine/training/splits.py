"""The training and validation images of a run: the data set's own splits, or a share of train."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rtdetr_cli.config.dataset import DatasetConfig
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.console import warn
from rtdetr_cli.core.errors import DataError, UsageError
from rtdetr_cli.core.files import atomic_write
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.selection import select_classes, take_fraction, take_images
from rtdetr_cli.data.splits import VAL_IMAGES, load_data, open_split

_HELD_OUT = 1
"""Stream of the seed, as take_fraction draws from the seed itself."""


def open_splits(settings: TrainSettings) -> tuple[DetectionDataset, DetectionDataset | None]:
    """The images to train and to validate on; None with val=false.

    Raises:
        DataError: there is no val split, the classes of the two differ, or there is no box.
        UsageError: val_fraction beside a val split.
    """
    config = load_data(settings.data or "", settings.download, settings.bad_images)
    _check_val(config, settings)
    train_split, val_split = open_split(config, "train"), None
    if settings.val_fraction is not None:
        train_split, val_split = hold_out(train_split, settings.val_fraction, settings.seed)
    elif settings.val:
        val_split = open_split(config, "val")
    splits = [split for split in (train_split, val_split) if split is not None]
    for note in dict.fromkeys(note for split in splits for note in split.notes):
        warn(note)
    if splits[0].names != splits[-1].names:
        raise DataError(f"{settings.data}: the classes of train and val differ")
    train_split, *rest = (
        select_classes(split, settings.classes, settings.single_cls) for split in splits
    )
    train_split = take_fraction(train_split, settings.fraction, settings.seed)
    if train_split.num_boxes == 0:
        left = " of the chosen classes" if settings.classes is not None else ""
        raise DataError(f"{settings.data}: the training split has no boxes{left}")
    return train_split, rest[0] if rest else None


def hold_out(
    dataset: DetectionDataset, share: float, seed: int
) -> tuple[DetectionDataset, DetectionDataset]:
    """Divide a split in two with the seed, both in its order and with at least one image.

    Returns:
        The remaining images and those held out.

    Raises:
        DataError: there is only one image.
    """
    if len(dataset) < 2:
        raise DataError("val_fraction needs at least two training images")
    count = min(max(1, round(share * len(dataset))), len(dataset) - 1)
    order = np.random.default_rng([seed, _HELD_OUT]).permutation(len(dataset))
    held, kept = np.sort(order[:count]), np.sort(order[count:])
    return take_images(dataset, kept.tolist()), take_images(dataset, held.tolist())


def write_held_out(run_dir: Path, dataset: DetectionDataset) -> None:
    """Write the paths of the images held out, one a line."""
    with atomic_write(run_dir / VAL_IMAGES) as path:
        lines = [f"{record.path.absolute()}\n" for record in dataset.records]
        path.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")


def _check_val(config: DatasetConfig, settings: TrainSettings) -> None:
    """Check that exactly one of the val split, val_fraction and val=false applies.

    A val split that is the train split, as that of a single COCO json, may be divided.
    """
    if config.shapes is not None:
        has_own = config.shapes.num_val > 0
    else:
        has_own = bool(config.val and config.val != config.train)
    if settings.val_fraction is not None and has_own:
        raise UsageError(
            f"train: val_fraction={settings.val_fraction:g} has no effect, as {settings.data} has "
            "a val split; leave val_fraction out, or remove val from the data set's YAML"
        )
    has_val = has_own or bool(config.val) or settings.val_fraction is not None
    if settings.val and not has_val and (config.train or config.shapes):
        raise DataError(
            f"{settings.data}: has no val split; val_fraction=0.1 holds out a tenth of the "
            "training images, val=false trains without validation"
        )
