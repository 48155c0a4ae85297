import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist

from rtdetr_cli.core import distributed
from rtdetr_cli.core.errors import DataError

SIBLING = """
import sys, torch, torch.distributed as dist
from rtdetr_cli.core.distributed import (
    all_gather, all_reduce_max, all_reduce_mean, is_main_process, loss_normalizer, run_on_all,
    run_on_main,
)
from rtdetr_cli.core.errors import DataError
dist.init_process_group("gloo", init_method=sys.argv[1], rank=1, world_size=2)
assert not is_main_process()
assert all_reduce_mean(torch.tensor(7.0)).item() == 5.0
assert loss_normalizer(torch.tensor(0.0)).item() == 0.5
assert all_reduce_max(15) == 15
assert run_on_main(lambda: "mine") == "main"
assert all_gather(1) == [0, 1]
def fail():
    raise DataError("only here")
try:
    run_on_all(fail)
except SystemExit as end:
    assert end.code == 3
dist.destroy_process_group()
"""


def test_a_single_process_is_the_main_one():
    assert not distributed.is_distributed()
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.is_main_process()


def test_local_world_size_comes_from_the_launcher(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert distributed.local_world_size() == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert distributed.local_world_size() == 4


def test_the_mean_of_one_process_is_its_own_value():
    assert distributed.all_reduce_mean(torch.tensor(3.0)).item() == 3.0


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no distributed package")
def test_collectives_of_two_processes(tmp_path):
    rendezvous = (tmp_path / "rendezvous").as_uri()
    with subprocess.Popen([sys.executable, "-c", SIBLING, rendezvous]) as sibling:
        dist.init_process_group("gloo", init_method=rendezvous, rank=0, world_size=2)
        try:
            mine = torch.tensor(3.0)
            mean = distributed.all_reduce_mean(mine)
            assert (distributed.rank(), distributed.world_size()) == (0, 2)
            assert (
                distributed.loss_normalizer(torch.tensor(0.0)).item() == 0.5
            )  # one box over both processes
            assert distributed.all_reduce_max(0) == 15
            assert distributed.run_on_main(lambda: "main") == "main"
            assert distributed.all_gather(0) == [0, 1]
            with pytest.raises(DataError, match="only here"):
                distributed.run_on_all(lambda: None)
        finally:
            dist.destroy_process_group()
    assert sibling.returncode == 0
    assert mean.item() == 5.0
    assert mine.item() == 3.0


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no distributed package")
def test_a_restarted_job_ignores_the_keys_of_the_previous_start():
    """The launcher's store still holds the keys of the previous start."""
    store = dist.HashStore()
    for _ in range(2):
        with ThreadPoolExecutor() as pool:
            parts = list(pool.map(distributed._fresh_store, [store] * 3, range(3), [3] * 3))
        parts[0].set("address", "here")
        assert parts[1].get("address") == parts[2].get("address") == b"here"
        assert parts[0].check(["address", "old"]) is False
        parts[0].set("old", "")
