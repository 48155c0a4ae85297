"""Patience counts epochs since the best AP; time is read once an epoch."""

from __future__ import annotations

import pytest

from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.engine.training import early_stopping as stopping
from rtdetr_cli.engine.training.early_stopping import Stopper
from rtdetr_cli.engine.training.run import EpochSums, Progress


def rows(*aps: float | None) -> list[dict[str, float]]:
    """An epoch each; None was not validated."""
    return [
        {"epoch": epoch, "time": 1.0, **({} if ap is None else {"metrics/AP": ap})}
        for epoch, ap in enumerate(aps, start=1)
    ]


def test_patience_counts_epochs_since_the_best():
    stopper = Stopper(TrainSettings(data="x", patience=3), Progress())
    assert stopper.reason([]) is None
    assert stopper.reason(rows(None, None, None, None, None)) is None
    assert stopper.reason(rows(0.1, 0.5, 0.4, 0.3)) is None
    assert "0.5000 of epoch 2 in 3 epochs" in str(stopper.reason(rows(0.1, 0.5, 0.4, 0.5, 0.3)))
    assert stopper.reason(rows(0.1, 0.5, 0.4, 0.3, 0.6)) is None


def test_patience_is_off_by_default():
    assert Stopper(TrainSettings(data="x"), Progress()).reason(rows(0.5, *[0.1] * 60)) is None


def test_the_clock_includes_the_epochs_before_a_resume():
    settings = TrainSettings(data="x", time=0.5)
    fresh = Stopper(settings, Progress(rows=rows(0.1)))
    resumed = Stopper(settings, Progress(rows=[{"time": 1800.0}], sums=EpochSums(seconds=1.0)))
    assert not fresh.time_is_over()
    assert fresh.reason(rows(0.1)) is None
    assert resumed.reason(rows(0.1)) is None  # the clock has not been read yet
    assert resumed.time_is_over()
    assert "time=0.5 hours" in str(resumed.reason(rows(0.1)))


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time in seconds, in its only entry."""
    now = [1000.0]
    monkeypatch.setattr(stopping, "clock", lambda: now[0])
    return now


def planned(stopper: Stopper, clock: list[float], *seconds: float, done: int = 0) -> list[object]:
    """The number of epochs planned after epochs of these durations."""
    planned_epochs = []
    for number, duration in enumerate(seconds, start=done + 1):
        clock[0] += duration
        stopper.time_is_over()
        planned_epochs.append(stopper.epochs_that_fit(number))
    return planned_epochs


def test_the_number_of_epochs_follows_from_the_measured_pace(clock, capsys):
    hour = TrainSettings(data="x", time=1)
    # 200 s are more than a twentieth of the hour: the first epoch must do, 3400 s hold 17 more
    assert planned(Stopper(hour, Progress()), clock, 200) == [18]
    assert "200 s an epoch: time=1 hours hold 18 epochs" in capsys.readouterr().err
    # 100, 50 and 50 s: the first is not counted, 3400 s hold 68 of 50 s
    assert planned(Stopper(hour, Progress()), clock, 100, 50, 50) == [None, None, 71]
    # an epoch that leaves no room for another one: the next ends the run
    assert planned(Stopper(hour, Progress()), clock, 2000) == [2]
    assert planned(Stopper(hour, Progress()), clock, 4000) == [None]
    assert planned(Stopper(TrainSettings(data="x"), Progress()), clock, 4000) == [None]


def test_a_resumed_epoch_includes_its_earlier_time(clock):
    hour = TrainSettings(data="x", time=1)
    progress = Progress(epoch=1, rows=[{"time": 90.0}], sums=EpochSums(seconds=60.0))
    # 90 s and an epoch of 60 + 40 s: 3410 s hold 34 more
    assert planned(Stopper(hour, progress), clock, 40, done=1) == [36]
