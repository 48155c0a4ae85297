"""Settings of `rtdetr benchmark`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rtdetr_cli.config.fields import Batch, Count, Family
from rtdetr_cli.config.settings.shared import InferenceSettings, RunFolderSettings
from rtdetr_cli.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings(InferenceSettings, RunFolderSettings):
    """Compare all formats of a model on this machine: AP, drift, latency, size, memory."""

    mode = "benchmark"
    groups: ClassVar[dict[str, str]] = {
        "model": "Model and data",
        "batch": "Inference",
        "json": "Output",
    }

    model: str = "rtdetr-l.pt"
    """Weights (.pt) or an architecture (.yaml), which gets random weights."""
    family: Family | None = None
    """dfine, deim or rtdetrv4, for weights whose tensors and file name do not say which."""
    data: str | None = None
    """Data set (AP and drift on its val split) or image folder; None: drift on generated images."""
    download: bool | None = None
    """Download the data set if absent: true without a question, false never; None: up to 1 GB."""
    formats: str | None = None
    """Formats besides torch, e.g. onnx,openvino-half,engine-int8,torch-half; None: all."""
    images: Count | None = None
    """Number of images of data to use, evenly spaced; None: all."""

    batch: Batch = 8
    """Batch size for throughput; latency is measured with one image."""
    runs: Count = 50
    """Timed calls per format, interleaved in groups of five; rounded up."""

    name: str = "benchmark"
    json: bool = False
    """Print the results as JSON."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images is not None and self.data is None:
            raise UsageError("benchmark: images has no effect without data")
