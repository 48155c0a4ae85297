"""Settings of `rtdetr check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rtdetr_cli.config.fields import BadImages, ImageSize, Queries
from rtdetr_cli.config.settings.shared import Settings


@dataclass(frozen=True, kw_only=True)
class CheckSettings(Settings):
    """Check a data set for problems."""

    mode = "check"
    groups: ClassVar[dict[str, str]] = {"data": "Data", "imgsz": "Training", "strict": "Output"}

    data: str
    """Data set: a name (coco8), YAML, folder or COCO json."""
    download: bool | None = None
    """Download the data set if absent: true without a question, false never; None: up to 1 GB."""
    bad_images: BadImages = "error"
    """error, or skip: leave out images that cannot be decoded or have a wrong label."""

    imgsz: ImageSize = 640
    """Input size that you want to train with: boxes under two pixels at this size are found."""
    num_queries: Queries = 300
    """Queries of the model that you want to train: images with more boxes are found."""

    strict: bool = False
    """Fail on warnings too, with exit code 3."""
    json: bool = False
    """Print all findings as JSON."""
