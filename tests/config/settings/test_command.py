"""The command of a report runs again as it is."""

from __future__ import annotations

import shlex

import pytest

from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.command import as_command
from rtdetr_cli.config.settings.compare import CompareSettings
from rtdetr_cli.config.settings.val import ValSettings


def test_model_and_data_come_first_then_what_is_not_a_default():
    settings = ValSettings(data="my.yaml", imgsz=320, plots=False, classes=(0, 2), conf=0.0)
    expected = "rtdetr val data=my.yaml imgsz=320 classes=0,2 plots=false"
    assert as_command(settings) == expected


@pytest.mark.parametrize(
    "settings",
    [
        ValSettings(model="my model.pt", data="it's; rm -rf $HOME.yaml", imgsz=(64, 96)),
        CompareSettings(model="a.pt", other="b.pt", data="c.yaml", download=True, seed=3),
    ],
    ids=lambda settings: settings.mode,
)
def test_a_shell_reads_back_the_same_settings(settings):
    program, mode, *words = shlex.split(as_command(settings))
    assert (program, mode) == ("rtdetr", settings.mode)
    pairs = dict(word.split("=", 1) for word in words)
    assert settings_from_pairs(type(settings), pairs) == settings
