"""`rtdetr predict`: detect."""

from __future__ import annotations

from rtdetr_cli.config.settings.predict import PredictSettings

EXAMPLES = (
    "rtdetr predict model=rtdetr-l.pt source=bus.jpg",
    "rtdetr predict source=pictures classes=0,2,5 conf=0.4 save_txt",
    "rtdetr predict source=bus.jpg decoder_layers=4 json=true",
)


def run(settings: PredictSettings) -> int:
    """Hand over to the engine, which brings torch."""
    from rtdetr_cli.engine.predict import predict

    return predict(settings)
