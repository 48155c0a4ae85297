"""`rtdetr train`: train or fine-tune."""

from __future__ import annotations

from rtdetr_cli.config.settings.train import TrainSettings

EXAMPLES = (
    "rtdetr train data=coco8.yaml epochs=100",
    "rtdetr train model=rtdetr-n.yaml data=shapes.yaml device=cpu",
)


def run(settings: TrainSettings) -> int:
    """Hand over to the engine, which brings torch."""
    from rtdetr_cli.engine.train import train

    train(settings)
    return 0
