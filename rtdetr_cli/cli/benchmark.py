"""`rtdetr benchmark`: every format on this machine."""

from __future__ import annotations

from rtdetr_cli.config.settings.benchmark import BenchmarkSettings

EXAMPLES = (
    "rtdetr benchmark model=runs/train/weights/best.pt data=coco8.yaml",
    "rtdetr benchmark model=rtdetr-n.yaml formats=torch,onnx runs=20",
)


def run(settings: BenchmarkSettings) -> int:
    """Hand over to the engine, which brings torch."""
    from rtdetr_cli.engine.benchmark import benchmark

    benchmark(settings)
    return 0
