"""RT-DETR, the NMS-free real-time detection transformer: train, validate, run and export it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtdetr_cli.core.cpu import share_cores
from rtdetr_cli.core.version import VERSION

if TYPE_CHECKING:
    from rtdetr_cli.api import RTDETR
    from rtdetr_cli.core.results import Results
    from rtdetr_cli.engine.batch_predictor import BatchPredictor

__version__ = VERSION
__all__ = ["RTDETR", "BatchPredictor", "Results", "__version__"]

_NETWORK = "only RTDETR: from rtdetr_cli import RTDETR"
_PARTS = "RTDETR(...) has train, val and predict, and add_callback acts on them"
_SETTINGS = "but keys of each call, or a file of them as cfg=FILE"
_BENCHMARK = 'but a method: RTDETR("rtdetr-l.pt").benchmark(data="coco8.yaml")'
_INSTEAD = {
    **dict.fromkeys(("YOLO", "YOLOE", "YOLOWorld", "NAS", "SAM", "FastSAM"), _NETWORK),
    **dict.fromkeys(("DetectionTrainer", "DetectionValidator", "DetectionPredictor"), _PARTS),
    **dict.fromkeys(("RTDETRTrainer", "RTDETRValidator", "RTDETRPredictor"), _PARTS),
    **dict.fromkeys(("settings", "SETTINGS"), _SETTINGS),
    **dict.fromkeys(("benchmark", "ProfileModels"), _BENCHMARK),
    "ThreadingLocked": "as each thread may open its own RTDETR",
    "autosplit": "but `rtdetr train val_fraction=0.1` validates on a share of the train images",
    "convert_coco": "as COCO json is read without a conversion, see docs/datasets.md",
    "checks": "but `rtdetr env` prints versions, devices and caches",
    "download": "weights and data sets are fetched when a run names them",
    "hub": "there is no account and no upload",
    "solutions": "applications on video are not supported yet",
}
"""Names of Ultralytics that are not here, and what to do instead."""

share_cores()  # before torch is imported, which reads it once


def __getattr__(name: str) -> object:
    """Import the public names when they are asked for: `import rtdetr_cli` stays instant."""
    if name == "RTDETR":
        from rtdetr_cli.api import RTDETR

        return RTDETR
    if name == "Results":
        from rtdetr_cli.core.results import Results

        return Results
    if name == "BatchPredictor":
        from rtdetr_cli.engine.batch_predictor import BatchPredictor

        return BatchPredictor
    if name in _INSTEAD:  # an ImportError is shown as it is; `from` would replace an AttributeError
        raise ImportError(f"rtdetr_cli has no {name}, {_INSTEAD[name]}")
    raise AttributeError(f"module rtdetr_cli has no attribute {name}")
