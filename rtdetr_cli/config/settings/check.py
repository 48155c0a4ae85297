"""Settings of `rtdetr check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from rtdetr_cli.config.fields import BadImages, Batch, ImageSize, OneOf, Queries, Workers
from rtdetr_cli.config.model_path import is_architecture
from rtdetr_cli.config.settings.shared import ReportSettings
from rtdetr_cli.core.errors import UsageError

_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class CheckSettings(ReportSettings):
    """Check a data set for problems."""

    mode = "check"
    groups: ClassVar[dict[str, str]] = {
        "data": "Data",
        "imgsz": "Training",
        "model": "Suspected label errors",
        "fix": "Cleaned copy",
        "strict": "Output",
    }

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

    model: str | None = None
    """Trained weights (.pt), a run folder or an exported file that searches for wrong labels."""
    split: Annotated[str, OneOf(("train", "val", "test"))] | None = None
    """Split that model searches; None: val and test, as a model agrees with what it learned."""
    device: str | None = None
    """Where model runs: cpu, cuda, cuda:1, mps or 0; None: cuda, then mps, then cpu."""
    batch: Batch = _BATCH
    """Images per batch of model; its input size is its own, or imgsz if that is given."""
    workers: Workers | None = None
    """Data loading processes for model, 0: none; None: one per core, at most 4."""
    fix: str | None = None
    """New folder for a cleaned copy, with a list of the changes; None: none is written."""
    images: Annotated[str, OneOf(("copy", "link"))] = "copy"
    """copy: into the folder `fix`; link: links to the files of the source."""

    strict: bool = False
    """Fail on warnings too, with exit code 3."""
    json: bool = False
    """Print all findings as JSON."""
    name: str = "check"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model is None:
            defaults = {"split": None, "device": None, "batch": _BATCH, "workers": None}
            unused = [key for key, value in defaults.items() if getattr(self, key) != value]
            if unused:
                raise UsageError(f"check: {unused[0]} has no effect without model")
        elif is_architecture(self.model):
            raise UsageError(f"check: {self.model} is an architecture; model needs trained weights")
        if self.fix is not None and self.strict:
            raise UsageError(
                "check: strict has no effect with fix, which succeeds if the copy is written; "
                f"check data={self.fix} strict afterwards"
            )
        if self.fix is None and ("images" in self.given or self.images != "copy"):
            raise UsageError("check: images has no effect without fix=, the folder of a copy")
