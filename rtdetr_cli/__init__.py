"""RT-DETR, the NMS-free real-time detection transformer: train, validate, run and export it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtdetr_cli.core.cpu import share_cores
from rtdetr_cli.core.version import VERSION

if TYPE_CHECKING:
    from rtdetr_cli.api import RTDETR
    from rtdetr_cli.core.results import Results

__version__ = VERSION
__all__ = ["RTDETR", "Results", "__version__"]

_THEIRS = {"YOLO", "YOLOE", "YOLOWorld", "NAS", "SAM", "FastSAM"}
"""Classes of Ultralytics for other networks."""

share_cores()  # before torch is imported, which reads it once


def __getattr__(name: str) -> object:
    """Import the public names when they are asked for: `import rtdetr_cli` stays instant."""
    if name == "RTDETR":
        from rtdetr_cli.api import RTDETR

        return RTDETR
    if name == "Results":
        from rtdetr_cli.core.results import Results

        return Results
    if name in _THEIRS:  # an ImportError is shown as it is; `from` would replace an AttributeError
        raise ImportError(f"rtdetr_cli has no {name}, only RTDETR: from rtdetr_cli import RTDETR")
    raise AttributeError(f"module rtdetr_cli has no attribute {name}")
