"""Settings of `rtdetr val`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from rtdetr_cli.config.fields import (
    Batch,
    Count,
    CountFromZero,
    Fraction,
    ImageSize,
    OneOf,
    Queries,
    Seconds,
    Workers,
)
from rtdetr_cli.config.settings.shared import Settings, refuse_runtime_keys


@dataclass(frozen=True, kw_only=True)
class ValSettings(Settings):
    """Measure a detector: the twelve COCO numbers and a table per class."""

    mode = "val"
    groups: ClassVar[dict[str, str]] = {
        "model": "What to measure",
        "imgsz": "How to run it",
        "project": "Run folder and output",
    }

    model: str = "rtdetr-l.pt"
    """Weights (.pt) or an exported file (.onnx, .engine, x_openvino_model)."""
    data: str
    """Data set: YAML, folder or COCO json."""
    split: Annotated[str, OneOf(("train", "val", "test"))] = "val"
    """Which part of the data set: train, val or test."""
    classes: tuple[CountFromZero, ...] | None = None
    """Class indices to measure, for example 0,2,5; None: all."""
    single_cls: bool = False
    """Treat all classes as one, as in a training with single_cls."""

    imgsz: ImageSize | None = None
    """Input size in pixels, one number or height,width; None: the model's own."""
    batch: Batch = 16
    """Images per step."""
    device: str | None = None
    """cpu, cuda, cuda:1, mps or 0; None: cuda, then mps, then cpu."""
    workers: Workers | None = None
    """Processes that load images, 0 is none beside the main one; None: one per core, at most 4."""
    conf: Fraction = 0.0
    """Lowest score that counts; above 0 AP falls."""
    max_det: Count = 300
    """Most detections per image."""
    decoder_layers: Count | None = None
    """Decoder layers to run, fewer is faster; None: all that the model runs at inference."""
    num_queries: Queries | None = None
    """Queries to select, fewer is faster; None: the model's own."""
    half: bool = False
    """16-bit floats, boxes in float32: float16 on CUDA, bfloat16 on CPUs that have it."""
    backend: Annotated[str, OneOf(("torch", "auto", "onnx", "openvino"))] = "torch"
    """What weights (.pt) run in on a CPU: torch, onnx, openvino; auto takes the fastest there."""
    timeout: Seconds | None = None
    """Seconds that an exported file may take for an image before it is stopped; None: no limit."""

    project: str = "runs"
    """Folder of all runs."""
    name: str = "val"
    """Folder of this run; a number is added where it exists."""
    exist_ok: bool = False
    """Write into an existing run folder."""
    save_json: bool = False
    """Write the detections as COCO json."""
    plots: bool = True
    """Draw curves and confusion matrices into the run folder."""
    json: bool = False
    """Print the metrics as JSON."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_runtime_keys(self.mode, self.model, self.half, self.backend, self.timeout)
