"""Settings of `rtdetr predict`."""

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
    Range,
    Seconds,
)
from rtdetr_cli.config.settings.shared import Settings, refuse_runtime_keys
from rtdetr_cli.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class PredictSettings(Settings):
    """Detect objects in images."""

    mode = "predict"
    groups: ClassVar[dict[str, str]] = {
        "model": "What to run on what",
        "imgsz": "How to run it",
        "save": "What to write",
        "show_labels": "How boxes look",
        "project": "Run folder",
    }

    model: str = "rtdetr-l.pt"
    """Weights (.pt) or an exported file (.onnx, .engine, x_openvino_model)."""
    source: str
    """Image, folder, glob pattern or .txt list."""

    imgsz: ImageSize | None = None
    """Input size in pixels, one number or height,width; None: the model's own."""
    conf: Fraction = 0.25
    """Lowest score that is shown."""
    max_det: Count = 300
    """Most detections per image."""
    classes: tuple[CountFromZero, ...] | None = None
    """Class indices to keep, for example 0,2,5; None: all."""
    batch: Batch = 1
    """Images per step."""
    device: str | None = None
    """cpu, cuda, cuda:1, mps or 0; None: cuda, then mps, then cpu."""
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

    save: bool = True
    """Write images with boxes drawn."""
    save_txt: bool = False
    """Write class x y w h as YOLO labels."""
    save_conf: bool = False
    """Add the score to each line of save_txt."""
    save_crop: bool = False
    """Write what is inside each box as an image."""
    json: bool = False
    """Print the detections as JSON."""

    show_labels: bool = True
    """Write class names at the boxes."""
    show_conf: bool = True
    """Write scores at the boxes."""
    line_width: Annotated[int, Range(1, 1000)] | None = None
    """Width of the boxes' lines, pixels; None: from the size of the image."""

    project: str = "runs"
    """Folder of all runs."""
    name: str = "predict"
    """Folder of this run; a number is added where it exists."""
    exist_ok: bool = False
    """Write into an existing run folder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.save_conf and not self.save_txt:
            raise UsageError("predict: save_conf has no effect without save_txt")
        refuse_runtime_keys(self.mode, self.model, self.half, self.backend, self.timeout)
