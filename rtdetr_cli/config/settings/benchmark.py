"""Keys of `rtdetr benchmark`; modes.py holds those of the other modes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rtdetr_cli.config.fields import Batch, Count, ImageSize, Seconds
from rtdetr_cli.config.settings.shared import Settings
from rtdetr_cli.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings(Settings):
    """Compare every format of a model on this machine: AP, drift, latency, size, memory."""

    mode = "benchmark"
    groups: ClassVar[dict[str, str]] = {
        "model": "What to compare",
        "imgsz": "How to run it",
        "project": "Run folder and output",
    }

    model: str = "rtdetr-l.pt"
    """Weights (.pt) or an architecture (.yaml), which gets random weights."""
    data: str | None = None
    """Data set (AP and drift on its val split) or folder; None: drift on images drawn by us."""
    formats: str | None = None
    """Rows beside torch, for example onnx,openvino-half,engine-int8,torch-half; None: all."""
    images: Count | None = None
    """Images of data to use, evenly picked; None: all."""

    imgsz: ImageSize | None = None
    """Input size in pixels, one number or height,width; None: the model's own."""
    device: str | None = None
    """cpu, cuda, cuda:1, mps or 0; None: cuda, then mps, then cpu."""
    batch: Batch = 8
    """Images in a batch where throughput is measured; latency is that of one."""
    runs: Count = 50
    """Calls of each format whose latency counts, in turns of five; rounded up."""
    timeout: Seconds | None = None
    """Seconds that ONNX and OpenVINO files may take for an image; None: no limit."""

    project: str = "runs"
    """Folder of all runs."""
    name: str = "benchmark"
    """Folder of this run; a number is added where it exists."""
    exist_ok: bool = False
    """Write into an existing run folder."""
    json: bool = False
    """Print the numbers as JSON."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images is not None and self.data is None:
            raise UsageError("benchmark: images has no effect without data")
