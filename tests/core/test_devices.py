"""Names of devices without torch; those of torch itself are the reference."""

from __future__ import annotations

import pytest
import torch

from rtdetr_cli.core.devices import num_cuda_devices, parse_device
from rtdetr_cli.core.errors import BackendError


@pytest.mark.parametrize("name", ["cpu", "mps", "cuda", "cuda:1", "cpu:0"])
def test_names_are_read_as_torch_reads_them(name):
    expected = torch.device(name)
    assert parse_device(name) == (expected.type, expected.index or 0)


def test_a_number_is_a_gpu():
    assert parse_device("3") == ("cuda", 3)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:", "cuda:-1", "0,1", "cpu ", "\u0663"])
def test_other_names_are_refused(name):
    with pytest.raises(BackendError, match="is not a device; try cpu, mps, cuda or 0"):
        parse_device(name)


def test_the_driver_counts_the_gpus_that_torch_counts():
    assert num_cuda_devices() == torch.cuda.device_count()
