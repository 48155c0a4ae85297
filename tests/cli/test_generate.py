"""Generated files match the settings."""

from pathlib import Path

import pytest

from rtdetr_cli.cli.generate import generated_files
from rtdetr_cli.cli.help import keys_by_group, mode_help
from rtdetr_cli.config.fields import field_types
from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.modes import MODES
from rtdetr_cli.config.settings.train import TrainSettings

ROOT = Path(__file__).parents[2]


FILES = generated_files()


@pytest.mark.parametrize("name", FILES)
def test_generated_files_are_fresh(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == FILES[name], (
        f"{name} is stale: python -m rtdetr_cli.cli.generate"
    )


@pytest.mark.parametrize("mode", MODES)
def test_every_key_is_in_one_group_and_has_a_text(mode: str) -> None:
    cls = MODES[mode]
    groups = keys_by_group(cls)
    keys = [key for group in groups.values() for key in group]
    assert sorted(key.name for key in keys) == sorted(field_types(cls))
    assert all(groups.values())
    assert all(key.text.endswith(".") for key in keys)
    assert cls.__doc__
    assert "\n" not in cls.__doc__


@pytest.mark.parametrize("mode", MODES)
def test_help_pages_leave_room_for_the_texts(mode: str) -> None:
    lines = mode_help(MODES[mode], (), width=100).splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) < 3 * len(field_types(MODES[mode])) + 20


def test_shipped_defaults_are_the_defaults() -> None:
    settings = settings_from_pairs(TrainSettings, {"cfg": ROOT / "cfg/train.yaml", "data": "x"})
    assert settings == TrainSettings(data="x")
