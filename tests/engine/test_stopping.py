"""Patience counts epochs since the best AP; time is read once an epoch."""

from __future__ import annotations

from rtdetr_cli.config.settings import TrainSettings
from rtdetr_cli.engine.stopping import Stopper


def rows(*aps: float | None) -> list[dict[str, float]]:
    """An epoch each; None was not validated."""
    return [
        {"epoch": epoch, "time": 1.0, **({} if ap is None else {"metrics/AP": ap})}
        for epoch, ap in enumerate(aps, start=1)
    ]


def test_patience_counts_epochs_since_the_best():
    stopper = Stopper(TrainSettings(data="x", patience=3), [])
    assert stopper.reason([]) is None
    assert stopper.reason(rows(None, None, None, None, None)) is None
    assert stopper.reason(rows(0.1, 0.5, 0.4, 0.3)) is None
    assert "0.5000 of epoch 2 in 3 epochs" in str(stopper.reason(rows(0.1, 0.5, 0.4, 0.5, 0.3)))
    assert stopper.reason(rows(0.1, 0.5, 0.4, 0.3, 0.6)) is None


def test_patience_is_off_by_default():
    assert Stopper(TrainSettings(data="x"), []).reason(rows(0.5, *[0.1] * 60)) is None


def test_the_clock_goes_on_from_the_epochs_before_a_resume():
    settings = TrainSettings(data="x", time=0.5)
    fresh, resumed = Stopper(settings, rows(0.1)), Stopper(settings, [{"time": 1801.0}])
    assert not fresh.time_is_over()
    assert fresh.reason(rows(0.1)) is None
    assert resumed.reason(rows(0.1)) is None  # nobody has read the clock yet
    assert resumed.time_is_over()
    assert "time=0.5 hours" in str(resumed.reason(rows(0.1)))
