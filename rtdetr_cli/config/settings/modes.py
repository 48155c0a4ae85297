"""Every key that a command knows: typed, documented, checked.

The source of the command line, Python, cfg/*.yaml, docs/settings.md. None: the toolkit chooses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from rtdetr_cli.config.fields import (
    ImageSize,
    OneOf,
)
from rtdetr_cli.config.settings.benchmark import BenchmarkSettings
from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.config.settings.shared import Settings
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.config.settings.val import ValSettings


@dataclass(frozen=True, kw_only=True)
class InfoSettings(Settings):
    """Say what a model is made of: layers, parameters, GFLOPs, classes."""

    mode = "info"
    groups: ClassVar[dict[str, str]] = {"model": "What to look at"}

    model: str = "rtdetr-l.pt"
    """Weights (.pt), an architecture (.yaml) or an exported file."""
    imgsz: ImageSize | None = None
    """Input size that GFLOPs are counted at; None: the model's own."""
    json: bool = False
    """Print as JSON."""


@dataclass(frozen=True, kw_only=True)
class ConvertSettings(Settings):
    """Turn a checkpoint of any family into ours, or ours into another's."""

    mode = "convert"
    groups: ClassVar[dict[str, str]] = {"model": "What to convert", "format": "What to write"}

    model: str
    """Checkpoint: ours, official PyTorch, Ultralytics or Hugging Face."""

    format: Annotated[str, OneOf(("rtdetr", "official", "hf", "safetensors"))] = "rtdetr"
    """rtdetr: our .pt; official: lyuwenyu's v2 .pth; hf: a folder for transformers; safetensors."""
    out: str | None = None
    """File or folder to write; None: the model's name in the current folder."""


@dataclass(frozen=True, kw_only=True)
class CheckSettings(Settings):
    """Look for what is wrong with a data set."""

    mode = "check"
    groups: ClassVar[dict[str, str]] = {"data": "What to check"}

    data: str
    """Data set: YAML, folder or COCO json."""
    json: bool = False
    """Print the findings as JSON."""


@dataclass(frozen=True, kw_only=True)
class ModelsSettings(Settings):
    """List the published weights: accuracy, licence, and whether they are on this machine."""

    mode = "models"
    groups: ClassVar[dict[str, str]] = {"json": "Output"}

    json: bool = False
    """Print as JSON, with addresses and paths."""


@dataclass(frozen=True, kw_only=True)
class EnvSettings(Settings):
    """Say what this machine has: CPU, cores, devices, runtimes, cache; for a bug report."""

    mode = "env"
    groups: ClassVar[dict[str, str]] = {"json": "Output"}

    json: bool = False
    """Print as JSON."""


MODES: dict[str, type[Settings]] = {
    cls.mode: cls
    for cls in (
        TrainSettings,
        ValSettings,
        PredictSettings,
        ExportSettings,
        BenchmarkSettings,
        InfoSettings,
        ConvertSettings,
        CheckSettings,
        ModelsSettings,
        EnvSettings,
    )
}


def size_hw(imgsz: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width from the key `imgsz`."""
    return (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
