"""The end of a run is estimated from its steps and from what followed its epochs so far."""

from __future__ import annotations

import pytest

from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.engine.training import pace as module
from rtdetr_cli.engine.training.pace import Pace, num_validations


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time in seconds, in its only entry."""
    now = [1000.0]
    monkeypatch.setattr(module, "clock", lambda: now[0])
    return now


def test_steps_alone_before_the_first_validation(clock) -> None:
    settings = TrainSettings(data="x", epochs=10)
    assert Pace().seconds_left(settings, 0, steps_left=95, seconds_per_step=2) == 190


def test_the_validations_of_the_remaining_epochs_and_of_the_best_weights_count(clock) -> None:
    pace, settings = Pace(), TrainSettings(data="x", epochs=10, val_every=4)
    for seconds, is_validated in ((3, False), (1, False), (2, False), (30, True)):
        clock[0] += 100  # steps
        pace.steps_end()
        clock[0] += seconds
        pace.epoch_ends(is_validated)
    # 6 epochs of 10 steps; validated after epochs 8 and 10 and at the end; 4 epochs of 2 s are not
    assert pace.seconds_left(settings, 4, 60, 10) == 600 + 3 * 30 + 4 * 2
    assert pace.elapsed == 436


def test_a_run_without_validation_has_none_at_the_end(clock) -> None:
    pace, settings = Pace(), TrainSettings(data="x", epochs=10, val=False)
    pace.steps_end()
    clock[0] += 5
    pace.epoch_ends(is_validated=False)
    assert pace.seconds_left(settings, 1, 9, 1) == 9 + 9 * 5


def test_the_hours_of_a_run_end_it_earlier(clock) -> None:
    pace, settings = Pace(), TrainSettings(data="x", time=1)
    pace.count_earlier(600)  # a run that was resumed
    clock[0] += 1000
    assert pace.elapsed == 1600
    assert pace.seconds_left(settings, 3, 10**6, 1) == 2000
    clock[0] += 9999
    assert pace.seconds_left(settings, 3, 10**6, 1) == 0


@pytest.mark.parametrize(("epochs", "expected"), [(0, 0), (3, 0), (4, 1), (9, 2), (10, 3)])
def test_number_of_validations(epochs: int, expected: int) -> None:
    """Every four epochs, and after the tenth, which is the last."""
    assert num_validations(TrainSettings(data="x", epochs=10, val_every=4), epochs) == expected
