"""Settings of `rtdetr compare`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from rtdetr_cli.config.fields import BadImages, Batch, Count, CountFromZero, OneOf, Range, Workers
from rtdetr_cli.config.model_path import is_exported
from rtdetr_cli.config.settings.shared import InferenceSettings, ReportSettings
from rtdetr_cli.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class CompareSettings(InferenceSettings, ReportSettings):
    """Say which of two detectors is better, with 95 % intervals over the images."""

    mode = "compare"
    groups: ClassVar[dict[str, str]] = {
        "model": "Models and data",
        "batch": "Inference",
        "resamples": "Statistics",
        "images": "Output",
    }
    positional: ClassVar[tuple[str, ...]] = ("model", "other")

    model: str
    """First: weights (.pt), a run folder, an exported file or a predictions.json of val."""
    other: str
    """Second, likewise; `rtdetr compare a.pt b.pt` sets both."""
    data: str
    """Data set: a name (coco8), YAML, folder or COCO json."""
    download: bool | None = None
    """Download the data set if absent: true without a question, false never; None: up to 1 GB."""
    bad_images: BadImages = "error"
    """error, or skip: leave out images that cannot be decoded or have a wrong label."""
    split: Annotated[str, OneOf(("train", "val", "test"))] = "val"
    """Split to evaluate: train, val or test."""
    classes: tuple[int | str, ...] | None = None
    """Classes to evaluate, names or indices, e.g. cat,dog or 0,2; None: all."""

    batch: Batch = 16
    """Images per batch."""
    workers: Workers | None = None
    """Data loading processes, 0: none; None: one per core, at most 4."""
    max_det: Count = 300
    """Maximum number of detections per image."""

    resamples: Annotated[int, Range(100, 100_000)] = 1000
    """Number of times that the images are drawn with replacement."""
    seed: CountFromZero = 0
    """Seed of the resamples."""

    images: CountFromZero = 10
    """Number of images to list, those where the two differ most."""
    json: bool = False
    """Print the comparison as JSON."""
    name: str = "compare"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.timeout is not None and not (is_exported(self.model) or is_exported(self.other)):
            raise UsageError("compare: timeout has no effect, neither model is an exported file")
