"""The texts beside the bar are those of the last batch and of the epoch so far."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.structures import Batch, Target
from rtdetr_cli.engine.training import live_status
from rtdetr_cli.engine.training.live_status import LiveStatus, device_memory, seconds_left
from rtdetr_cli.engine.training.pace import Pace
from rtdetr_cli.engine.training.run import EpochSums, Progress


def batch(height: int, width: int, *num_boxes: int) -> Batch:
    targets = [Target(torch.zeros(n, 4), torch.zeros(n, dtype=torch.int64)) for n in num_boxes]
    count = len(num_boxes)
    images = torch.zeros(count, 3, height, width)
    return Batch(images, targets, list(range(count)), [(height, width)] * count, [""] * count)


@pytest.fixture
def state() -> SimpleNamespace:
    """Epoch 2 of 3, ten of its twelve steps in 20 s; the first epoch took 40 s."""
    losses = {"loss": 90.0, "loss_vfl": 8.0, "loss_bbox": 2.0, "loss_giou": 16.0}
    sums = EpochSums(steps=10, skipped=2, seconds=20.0, waited=1.5)
    sums.losses = {name: torch.tensor(value) for name, value in losses.items()}
    return SimpleNamespace(
        settings=TrainSettings(data="x", epochs=3, accumulate=2),
        data=SimpleNamespace(train_batches=range(24)),
        progress=Progress(epoch=1, rows=[{"epoch": 1, "time": 40.0}], sums=sums),
        pace=Pace(),
        device=torch.device("cpu"),
    )


def test_the_texts(state, monkeypatch) -> None:
    monkeypatch.setattr(live_status, "resident_memory", lambda: 1_234_000_000)
    status = LiveStatus(state)
    assert list(status.watch(iter([[batch(64, 64, 1)], [batch(96, 64, 2, 0), batch(96, 64, 5)]])))
    losses = ("giou 2.000", "vfl 1.000", "l1 0.250")  # means over the eight steps not skipped
    above, beside, left = status()
    assert above == (*losses, "7 boxes", "96x64 px", "1.23 GB", "wait 8 %")
    # 60 s for 22 steps; 2 steps of this epoch and 12 of the last are left
    assert (beside, left) == (("0.50 it/s",), pytest.approx(14 * 60 / 22))


def test_losses_of_distributions_follow_the_others(state) -> None:
    state.progress.sums.losses |= {"loss_fgl": torch.tensor(4.0), "loss_ddf": torch.tensor(12.0)}
    status = LiveStatus(state)
    assert status()[0][:5] == ("giou 2.000", "vfl 1.000", "l1 0.250", "fgl 0.500", "ddf 1.500")


def test_without_an_earlier_epoch_the_pace_is_that_of_this_one(state) -> None:
    state.progress.rows, state.progress.epoch = [], 0
    assert seconds_left(state) == 26 * 2


def test_before_the_epochs_are_planned_the_run_ends_with_its_hours(state) -> None:
    state.progress.is_planned = False
    state.settings = TrainSettings(data="x", time=2)
    assert seconds_left(state) == pytest.approx(7200, abs=60)


def test_the_memory_of_a_cpu_is_that_of_the_process() -> None:
    memory = device_memory(torch.device("cpu"))
    assert memory is None or 10e6 < memory < 1e12
