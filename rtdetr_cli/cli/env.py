"""`rtdetr env`: what this machine has."""

from __future__ import annotations

from rtdetr_cli.config.settings.modes import EnvSettings

EXAMPLES = ("rtdetr env", "rtdetr env json=true")


def run(settings: EnvSettings) -> int:
    """Hand over to the engine."""
    from rtdetr_cli.engine.env import env

    env(settings)
    return 0
