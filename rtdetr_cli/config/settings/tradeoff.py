"""Settings of `rtdetr tradeoff`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from rtdetr_cli.config.fields import (
    MAX_SIDE,
    BadImages,
    Batch,
    Count,
    CountFromZero,
    Family,
    Fraction,
    OneOf,
    Queries,
    Range,
    Workers,
)
from rtdetr_cli.config.model_path import is_architecture, is_exported
from rtdetr_cli.config.settings.shared import RunFolderSettings
from rtdetr_cli.core.errors import UsageError

DROP = 0.5
"""Points of AP that the chosen setting may lose, without max_drop, min_ap and max_ms."""
Side = Annotated[int, Range(32, MAX_SIDE, multiple_of=32)]


@dataclass(frozen=True, kw_only=True)
class TradeoffSettings(RunFolderSettings):
    """Measure AP and latency of decoder layers x queries x image size; choose a setting."""

    mode = "tradeoff"
    groups: ClassVar[dict[str, str]] = {
        "model": "Model and data",
        "imgsz": "Settings to measure",
        "max_drop": "Choice",
        "batch": "Measurement",
        "plots": "Output",
    }

    model: str = "rtdetr-l.pt"
    """Weights (.pt) or a run folder; an exported file has its settings fixed inside."""
    family: Family | None = None
    """dfine, deim or rtdetrv4, for weights whose tensors and file name do not say which."""
    data: str
    """Data set: a name (coco8), YAML, folder or COCO json."""
    download: bool | None = None
    """Download the data set if absent: true without a question, false never; None: up to 1 GB."""
    bad_images: BadImages = "error"
    """error, or skip: leave out images that cannot be decoded or have a wrong label."""
    split: Annotated[str, OneOf(("train", "val", "test"))] = "val"
    """Split to evaluate: train, val or test."""
    classes: tuple[CountFromZero, ...] | None = None
    """Class indices to evaluate, e.g. 0,2,5; None: all."""

    imgsz: tuple[Side, ...] | None = None
    """Input sizes, each square, e.g. 480,640; None: the model's own and about 0.75 and 1.25 of
    it."""
    decoder_layers: tuple[Count, ...] | None = None
    """Numbers of decoder layers, e.g. 2,3,6; None: 1 to all."""
    num_queries: tuple[Queries, ...] | None = None
    """Numbers of queries, e.g. 100,300; None: the model's own, and a third and two thirds of it."""
    half: bool | None = None
    """Measure 16 bits as well; None: where the device has instructions for them."""
    backend: Annotated[tuple[str, ...], OneOf(("onnx", "openvino"))] | None = None
    """Runtimes besides torch, e.g. onnx,openvino, for the best settings in torch."""

    max_drop: Annotated[float, Range(0, 100)] | None = None
    """Choose the fastest setting that loses at most so many points of AP; None: 0.5, unless
    min_ap or max_ms is given."""
    min_ap: Fraction | None = None
    """Choose the fastest setting with at least this AP."""
    max_ms: Annotated[float, Range(0.001, 1e6)] | None = None
    """Choose the best AP among the settings with at most this latency, in ms."""
    export: bool = False
    """Export the chosen setting into the run folder: onnx, or its own runtime."""

    batch: Batch = 16
    """Images per batch for AP; latency is measured with one image."""
    workers: Workers | None = None
    """Data loading processes, 0: none; None: one per core, at most 4."""
    max_det: Count = 300
    """Maximum number of detections per image."""
    device: str | None = None
    """cpu, cuda, cuda:1, mps or 0; None: cuda, then mps, then cpu."""
    runs: Count = 20
    """Timed calls per setting, interleaved in groups of five; rounded up."""
    resamples: Annotated[int, Range(100, 100_000)] = 1000
    """Number of times that the images are drawn with replacement, for the intervals."""
    seed: CountFromZero = 0
    """Seed of the resamples."""

    name: str = "tradeoff"
    plots: bool = True
    """Draw tradeoff.png into the run folder."""
    json: bool = False
    """Print all settings as JSON."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if is_exported(self.model):
            raise UsageError(
                f"tradeoff: {self.model} is an exported file, in which decoder layers, queries and "
                "size are fixed; give the weights (.pt), and runtimes with backend=onnx,openvino"
            )
        if is_architecture(self.model):
            raise UsageError(f"tradeoff: {self.model} has no weights, so its AP means nothing")

    @property
    def allowed_drop(self) -> float | None:
        """`max_drop`, or its default if nothing else limits the choice."""
        is_limited = self.min_ap is not None or self.max_ms is not None
        return DROP if self.max_drop is None and not is_limited else self.max_drop
