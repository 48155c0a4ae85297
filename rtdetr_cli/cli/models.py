"""`rtdetr models`: what is published."""

from __future__ import annotations

from rtdetr_cli.config.settings.modes import ModelsSettings

EXAMPLES = ("rtdetr models", "rtdetr models json=true")


def run(settings: ModelsSettings) -> int:
    """Hand over to the engine."""
    from rtdetr_cli.engine.models import models

    models(settings)
    return 0
