"""What a worker is started with says the same as what the user typed."""

from __future__ import annotations

import pytest

from rtdetr_cli.cli.arguments import parse_arguments
from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.callbacks import Callbacks
from rtdetr_cli.core.errors import DataError, UsageError
from rtdetr_cli.engine.train import train
from rtdetr_cli.engine.training.launch import launch, worker_arguments


def settings_of(words: list[str]) -> TrainSettings:
    return settings_from_pairs(TrainSettings, parse_arguments(TrainSettings, words))


@pytest.mark.parametrize(
    "words",
    [
        ["data=my data.yaml", "device=cpu,cpu", "batch=16", "classes=0,2", "imgsz=64,96"],
        ["data=a", "device=cpu,cpu", "json", "plots=false", "lr=1e-3", "time=none"],
        ["data=a", "device=cpu,cpu", "recipe=official", "warmup_steps=7"],
        ["resume=true", "device=cpu,cpu"],
    ],
)
def test_a_worker_has_the_settings_of_the_user(words):
    typed = settings_of(words)
    mode, *given = worker_arguments(typed, ["cpu", "cpu"])
    assert mode == "train"
    assert settings_of(given) == typed
    assert settings_of(given).given >= typed.given


def test_callbacks_do_not_travel_to_workers():
    callbacks = Callbacks()
    callbacks.add("on_train_end", print)
    with pytest.raises(UsageError, match="callbacks do not reach the workers of device=cpu,cpu"):
        train(TrainSettings(data="a", device="cpu,cpu"), callbacks)


def test_absent_data_is_reported_before_workers_start(tmp_path, monkeypatch):
    """Only this process may ask; the network is off in tests."""
    monkeypatch.setenv("RTDETR_HOME", str(tmp_path))
    with pytest.raises(DataError, match=r"^coco8\.yaml: not on this machine; unpack "):
        launch(TrainSettings(data="coco8"), ["cpu", "cpu"])
