"""Which device a worker gets, and which devices get workers."""

from __future__ import annotations

import pytest
import torch

from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.errors import BackendError, UsageError
from rtdetr_cli.engine.training.launch import check_shares, devices_to_launch, worker_device


def be_worker(patch: pytest.MonkeyPatch, rank: int, count: int) -> None:
    """As torchrun would have started this process."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    for name, value in zip(names, (rank, rank, count, count, "localhost", 1), strict=True):
        patch.setenv(name, str(value))


@pytest.mark.parametrize(
    ("device", "expected"), [("cpu", []), ("cpu,cpu", ["cpu"] * 2), ("[cpu, cpu]", ["cpu"] * 2)]
)
def test_a_list_of_devices_gets_workers(device, expected):
    assert devices_to_launch(TrainSettings(data="a", device=device)) == expected


def test_a_worker_starts_no_workers(monkeypatch):
    be_worker(monkeypatch, rank=1, count=2)
    assert devices_to_launch(TrainSettings(data="a", device="cpu,cpu")) == []


@pytest.mark.parametrize("device", ["0,0", "cpu,0", "mps,0"])
def test_devices_that_cannot_train_together_are_refused(device):
    with pytest.raises(UsageError, match="must name different GPUs, or cpu only"):
        devices_to_launch(TrainSettings(data="a", device=device))


def test_a_gpu_that_is_not_there_is_named_before_anything_starts():
    if torch.cuda.device_count() > 9:
        pytest.skip("this machine has ten GPUs")
    with pytest.raises(BackendError, match="device=9 is not available"):
        devices_to_launch(TrainSettings(data="a", device="9,10"))


@pytest.mark.parametrize(("batch", "workers", "close"), [(5, 2, 4), (1, 4, 4), (10, 4, 8)])
def test_a_batch_that_cannot_be_shared_is_refused(batch, workers, close):
    with pytest.raises(UsageError, match=rf"multiple of {workers}, for example {close}$"):
        check_shares(batch, workers)
    check_shares(close, workers)


def test_workers_on_cpus_need_no_list(monkeypatch):
    be_worker(monkeypatch, rank=1, count=2)
    for device in ("cpu", "cpu,cpu"):
        assert worker_device(device) == torch.device("cpu")


@pytest.mark.parametrize("device", ["0", "mps", "0,1,2"])
def test_a_worker_without_a_device_of_its_own_is_refused(device, monkeypatch):
    be_worker(monkeypatch, rank=0, count=2)
    with pytest.raises(UsageError, match="one device for each of the 2 workers"):
        worker_device(device)
