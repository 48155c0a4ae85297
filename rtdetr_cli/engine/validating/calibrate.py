"""`rtdetr val calibrate=true`: fit the scores to the precision, and store it in the weights."""

from __future__ import annotations

import math
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rtdetr_cli.config.settings.val import ValSettings
from rtdetr_cli.core.console import result, table, warn
from rtdetr_cli.core.errors import DataError, StorageError, UsageError, WeightsError, printable
from rtdetr_cli.evaluation.calibration import class_thresholds, cross_fitted, fit_scaling
from rtdetr_cli.evaluation.metrics import Metrics
from rtdetr_cli.weights.archive import TorchArchive
from rtdetr_cli.weights.calibration import MAX_DATA, Calibration
from rtdetr_cli.weights.checkpoint import is_ours, load_checkpoint, save_checkpoint
from rtdetr_cli.weights.store import resolve_weights

FEW_HITS = 100
"""With fewer detections that match a box, the numbers are uncertain."""


@dataclass(frozen=True)
class Target:
    """The file that a calibration will be written into, as it is before the validation."""

    path: Path
    version: tuple[int, int]
    """Time of the last change in nanoseconds, and size."""
    num_classes: int

    def is_unchanged(self) -> bool:
        """Whether it is still that file."""
        return self.version == _version(self.path)

    def check_classes(self, names: dict[int, str]) -> None:
        """Check that a split is evaluated in the classes of the model.

        Raises:
            UsageError: single_cls merges them, or the split has some that the model does not know.
        """
        if len(names) != self.num_classes:
            raise UsageError(
                f"calibrate needs the {self.num_classes} classes of the model, and the split is "
                f"evaluated with {len(names)}; leave single_cls out, and classes that the model "
                "does not know"
            )


def find_target(model: str) -> Target:
    """Check that a calibration can be stored, before minutes are spent on measuring it.

    Raises:
        UsageError: the file is not of our format.
        WeightsError: it is missing or damaged.
        StorageError: it is read-only, or its folder cannot be written.
    """
    path = resolve_weights(model).resolve()
    is_own = False
    if not path.is_dir() and not _is_other(path):
        with TorchArchive(path) as archive:
            is_own = is_ours(archive.tree)
    if not is_own:
        raise UsageError(
            f"calibrate writes into a .pt of rtdetr, which {model} is not; convert it first: "
            f"rtdetr convert model={model} out={path.stem}-rtdetr.pt"
        )
    if not os.access(path.parent, os.W_OK):
        raise StorageError(f"cannot write {path}: permission denied")
    if not path.stat().st_mode & stat.S_IWUSR:  # a rename would replace it all the same
        raise StorageError(f"cannot write {path}: the file is read-only; calibrate a copy")
    version = _version(path)
    return Target(path, version, len(load_checkpoint(path).names))


@dataclass(frozen=True)
class Calibrated:
    """What was stored.

    Attributes:
        calibration: the record.
        path: the file it was written into.
        ece: D-ECE afterwards, of scores fitted on other images; nan if there are too few.
    """

    calibration: Calibration
    path: Path
    ece: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the record, the file, and `ece_after`."""
        return {**self.calibration.to_dict(), "file": str(self.path), "ece_after": self.ece}

    def print(self, metrics: Metrics) -> None:
        """Print the error before and after, the thresholds, and where they are."""
        curves = metrics.box.by_confidence
        thresholds = np.array(self.calibration.thresholds)
        chances = self.calibration.probabilities(thresholds)
        result(f"ECE after calibration {self.ece:.4f} (fitted on one half of the images, measured "
               "on the other)")  # fmt: skip
        rows = zip(metrics.names.values(), curves.instances, thresholds, chances, strict=True)
        shown = [(name, int(n), f"{t:.3f}", f"{p:.3f}") for name, n, t, p in rows if n]
        table("", ("class", "instances", "threshold", "calibrated score there"), shown)
        result(f"written into {self.path}: {self.calibration.describe()}")


def calibrate(target: Target, settings: ValSettings, metrics: Metrics) -> Calibrated:
    """Fit on the detections of a validation and write the result into the weights.

    Raises:
        DataError: no detection or every detection matches a box.
        WeightsError: the file has changed during the validation.
        StorageError: no space left or no permission; the file is kept as it was.
    """
    given, curves = metrics.calibration, metrics.box.by_confidence
    num_hits = int(given.hits.sum())
    if num_hits in {0, len(given.hits)}:
        kind = "no detection matches" if num_hits == 0 else "every detection matches"
        raise DataError(f"calibrate needs both hits and misses, and {kind} a box here")
    scaling = fit_scaling(given.scores, given.hits)
    try:
        ece = cross_fitted(given).ece
    except ValueError:
        ece = math.nan
    if num_hits < FEW_HITS or math.isnan(ece):
        warn(
            f"only {num_hits} detections match a box: the calibration is uncertain; use a split "
            f"with hundreds of boxes"
        )
    if settings.split == "train":
        warn("split=train: if the weights were trained on it, scores and thresholds are misleading")
    calibration = Calibration(
        *scaling,
        thresholds=tuple(class_thresholds(curves).tolist()),
        data=_short(settings.data or ""),
        split=settings.split,
        images=metrics.num_images,
        boxes=int(curves.instances.sum()),
    )
    _write(target, calibration)
    return Calibrated(calibration, target.path, ece)


def _write(target: Target, calibration: Calibration) -> None:
    found = load_checkpoint(target.path)
    if not target.is_unchanged():
        raise WeightsError(
            f"{target.path} has changed during the validation, for example by a training that "
            "runs; nothing was written"
        )
    save_checkpoint(target.path, replace(found, calibration=calibration))


def _is_other(path: Path) -> bool:
    """Whether a file exists and is no torch archive: safetensors, Paddle."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(2) != b"PK"


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _short(data: str) -> str:
    """Name of a data set for display: of a path the last two parts, as others may get the file."""
    return printable("/".join(Path(data).parts[-2:]), MAX_DATA)
