"""Settings of `rtdetr compare`: what is needed, and what has no effect."""

from __future__ import annotations

import pytest

from rtdetr_cli.config.settings.compare import CompareSettings
from rtdetr_cli.core.errors import UsageError


def test_two_models_and_a_data_set_are_enough():
    settings = CompareSettings(model="a.pt", other="b.pt", data="my.yaml")
    assert (settings.split, settings.resamples, settings.images) == ("val", 1000, 10)


def test_a_time_limit_needs_an_exported_file():
    keys = {"model": "a.pt", "data": "my.yaml", "timeout": 2.0}
    assert CompareSettings(other="b.onnx", **keys).timeout == 2
    with pytest.raises(UsageError, match="neither model is an exported file"):
        CompareSettings(other="b.pt", **keys)


def test_too_few_resamples_for_an_interval_are_refused():
    with pytest.raises(UsageError, match="resamples must be at least 100"):
        CompareSettings(model="a.pt", other="b.pt", data="my.yaml", resamples=10)


@pytest.mark.parametrize("key", [{"name": "x"}, {"project": "x"}, {"exist_ok": True}])
def test_a_run_folder_needs_a_report(key):
    keys = {"model": "a.pt", "other": "b.pt", "data": "my.yaml"} | key
    assert CompareSettings(report=True, **keys).report
    with pytest.raises(UsageError, match=f"{next(iter(key))} has no effect without report=true"):
        CompareSettings(**keys)
