"""`rtdetr val`: measure."""

from __future__ import annotations

from rtdetr_cli.config.settings.val import ValSettings

EXAMPLES = (
    "rtdetr val model=runs/train/weights/best.pt data=coco8.yaml",
    "rtdetr val model=rtdetr-l.onnx data=coco8.yaml",
)


def run(settings: ValSettings) -> int:
    """Hand over to the engine, which brings torch."""
    from rtdetr_cli.engine.val import validate

    validate(settings)
    return 0
