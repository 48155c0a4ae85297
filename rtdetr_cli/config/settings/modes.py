"""Settings of the small modes, and the table of all modes.

Source of the command line, the Python API, cfg/*.yaml and docs/settings.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rtdetr_cli.config.fields import Family, ImageSize
from rtdetr_cli.config.settings.benchmark import BenchmarkSettings
from rtdetr_cli.config.settings.check import CheckSettings
from rtdetr_cli.config.settings.compare import CompareSettings
from rtdetr_cli.config.settings.convert import ConvertSettings
from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.config.settings.shared import Settings
from rtdetr_cli.config.settings.track import TrackSettings
from rtdetr_cli.config.settings.tradeoff import TradeoffSettings
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.config.settings.val import ValSettings


@dataclass(frozen=True, kw_only=True)
class InfoSettings(Settings):
    """Describe a model: layers, parameters, GFLOPs, classes."""

    mode = "info"
    groups: ClassVar[dict[str, str]] = {"model": "Model"}

    model: str = "rtdetr-l.pt"
    """Weights (.pt), a run folder, an architecture (.yaml) or an exported file."""
    family: Family | None = None
    """dfine, deim or rtdetrv4, for weights whose tensors and file name do not say which."""
    imgsz: ImageSize | None = None
    """Input size for the GFLOPs; None: the model's own."""
    json: bool = False
    """Print as JSON."""


@dataclass(frozen=True, kw_only=True)
class ModelsSettings(Settings):
    """List the published weights: accuracy, licence, and whether they are downloaded."""

    mode = "models"
    groups: ClassVar[dict[str, str]] = {"json": "Output"}

    json: bool = False
    """Print as JSON, with URLs and paths."""


@dataclass(frozen=True, kw_only=True)
class EnvSettings(Settings):
    """Describe this machine for a bug report: CPU, cores, devices, runtimes, cache."""

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
        TrackSettings,
        ExportSettings,
        BenchmarkSettings,
        CompareSettings,
        TradeoffSettings,
        InfoSettings,
        ConvertSettings,
        CheckSettings,
        ModelsSettings,
        EnvSettings,
    )
}


def size_hw(imgsz: int | tuple[int, int]) -> tuple[int, int]:
    """Return height and width for a value of `imgsz`."""
    return (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
