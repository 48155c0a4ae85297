"""`rtdetr export`: write for another runtime."""

from __future__ import annotations

from rtdetr_cli.config.settings.export import ExportSettings

EXAMPLES = (
    "rtdetr export model=rtdetr-l.pt format=onnx",
    "rtdetr export model=runs/train/weights/best.pt imgsz=480,640 decoder_layers=4",
    "rtdetr export model=rtdetr-l.pt format=engine batch=1,8,16",
    "rtdetr export model=best.pt format=openvino int8 data=my.yaml",
    "rtdetr export model=runs/train/weights/best.onnx kit=onnxruntime-cpp",
)


def run(settings: ExportSettings) -> int:
    """Hand over to the engine, which brings torch."""
    from rtdetr_cli.engine.export import export

    export(settings)
    return 0
