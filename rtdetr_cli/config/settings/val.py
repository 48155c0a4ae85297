"""Settings of `rtdetr val`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from rtdetr_cli.config.conditions import parse_conditions
from rtdetr_cli.config.fields import (
    BadImages,
    Batch,
    Fraction,
    OneOf,
    Workers,
)
from rtdetr_cli.config.model_path import is_architecture, is_exported
from rtdetr_cli.config.settings.shared import RunFolderSettings, SpeedSettings
from rtdetr_cli.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ValSettings(SpeedSettings, RunFolderSettings):
    """Evaluate a detector: the twelve COCO metrics and a table per class."""

    mode = "val"
    groups: ClassVar[dict[str, str]] = {
        "data": "Model and data",
        "batch": "Inference",
        "save_json": "Output",
    }

    data: str | None = None
    """Data set: a name (coco8), YAML, folder or COCO json; None: that of the weights."""
    download: bool | None = None
    """Download the data set if absent: true without a question, false never; None: up to 1 GB."""
    bad_images: BadImages = "error"
    """error, or skip: leave out images that cannot be decoded or have a wrong label."""
    split: Annotated[str, OneOf(("train", "val", "test"))] = "val"
    """Split to evaluate: train, val or test."""
    classes: tuple[int | str, ...] | None = None
    """Classes to evaluate, names or indices, e.g. cat,dog or 0,2; None: all."""
    single_cls: bool = False
    """Merge all classes of data and model into one; with classes, these."""

    batch: Batch = 16
    """Images per batch."""
    workers: Workers | None = None
    """Data loading processes, 0: none; None: one per core, at most 4."""
    conf: Fraction = 0.0
    """Score threshold; a value above 0 lowers AP."""

    name: str = "val"
    save_json: bool = False
    """Write the detections to predictions.json, as COCO results."""
    errors: bool = False
    """Print the types of errors and the AP50 that each costs (TIDE)."""
    baseline: str | None = None
    """Earlier result to compare with: the output of val json=true, or a predictions.json."""
    fail_if: str | None = None
    """Exit with code 1 if a metric meets a condition, e.g. AP<0.45 or AP50<0.6,recall<0.9."""
    calibrate: bool = False
    """Store calibrated scores and thresholds per class in the weights, for predict conf=auto."""
    report: bool = False
    """Write report.html: all numbers, curves and the worst images in one file, to be mailed."""
    plots: bool = True
    """Draw curves, confusion matrices and three batches into the run folder."""
    json: bool = False
    """Print the metrics as JSON."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fail_if is not None:
            parse_conditions(self.fail_if)
        reason = self._calibrate_reason() if self.calibrate else None
        if reason:
            raise UsageError(f"val: calibrate {reason}")

    def _calibrate_reason(self) -> str | None:
        """Explain why the weights cannot be calibrated with the other keys; None if they can."""
        if is_exported(self.model):
            return (
                f"writes into weights (.pt), and {self.model} is exported; calibrate the weights "
                "and export them again"
            )
        if is_architecture(self.model):
            return f"needs weights; {self.model} is an architecture"
        if self.conf > 0:
            return "needs all detections; leave conf at 0"
        others: dict[str, object] = {
            "imgsz": None,
            "decoder_layers": None,
            "num_queries": None,
            "augment": False,
            "half": False,
        }
        others |= {"backend": "torch", "max_det": 300}
        changed = next((key for key, plain in others.items() if getattr(self, key) != plain), None)
        return changed and f"is for the weights as they are stored; leave {changed} at its default"
