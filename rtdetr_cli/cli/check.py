"""`rtdetr check`: look at a data set."""

from __future__ import annotations

from rtdetr_cli.config.settings.modes import CheckSettings

EXAMPLES = ("rtdetr check data=my.yaml",)


def run(settings: CheckSettings) -> int:
    """Hand over to the engine, which brings torch."""
    from rtdetr_cli.engine.check import check

    check(settings)
    return 0
