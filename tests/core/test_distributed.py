import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

from rtdetr_cli.core import distributed

SIBLING = """
import sys, torch, torch.distributed as dist
from rtdetr_cli.core.distributed import all_reduce_mean, all_reduce_min, is_main_process
dist.init_process_group("gloo", init_method=sys.argv[1], rank=1, world_size=2)
assert not is_main_process()
assert all_reduce_mean(torch.tensor(7.0)).item() == 5.0
assert all_reduce_min(12, torch.device("cpu")) == 9
dist.destroy_process_group()
"""


def test_a_process_without_siblings_is_the_main_one():
    assert not distributed.is_distributed()
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.is_main_process()


def test_torchrun_says_how_many_processes_are_on_this_machine(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert distributed.local_world_size() == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert distributed.local_world_size() == 4


def test_the_mean_and_the_least_of_one_process_are_its_own_value():
    assert distributed.all_reduce_mean(torch.tensor(3.0)).item() == 3.0
    assert distributed.all_reduce_min(3, torch.device("cpu")) == 3


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no distributed package")
def test_two_processes_agree_on_their_mean_and_their_least(tmp_path):
    meeting = (tmp_path / "meeting").as_uri()
    with subprocess.Popen([sys.executable, "-c", SIBLING, meeting]) as sibling:
        dist.init_process_group("gloo", init_method=meeting, rank=0, world_size=2)
        try:
            mine = torch.tensor(3.0)
            mean = distributed.all_reduce_mean(mine)
            least = distributed.all_reduce_min(9, mine.device)
            assert (distributed.rank(), distributed.world_size()) == (0, 2)
        finally:
            dist.destroy_process_group()
    assert sibling.returncode == 0
    assert mean.item() == 5.0
    assert least == 9
    assert mine.item() == 3.0
