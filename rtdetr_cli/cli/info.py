"""`rtdetr info`: look inside."""

from __future__ import annotations

from rtdetr_cli.config.settings.modes import InfoSettings

EXAMPLES = (
    "rtdetr info model=rtdetr-x.yaml",
    "rtdetr info model=runs/train/weights/best.pt json=true",
)


def run(settings: InfoSettings) -> int:
    """Hand over to the engine, which brings torch."""
    from rtdetr_cli.engine.info import info

    info(settings)
    return 0
