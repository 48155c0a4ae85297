from __future__ import annotations

import gc

import pytest

from rtdetr_cli.core import memory
from rtdetr_cli.core.memory import (
    collection_paused,
    free_memory,
    peak_memory,
    resident_memory,
)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """The files of a Linux machine with 3,000 KiB available."""
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:    3000 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    return tmp_path


def limit(folder, most, used, reclaimable):
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {reclaimable}\nslab 7\n")


def test_free_is_what_linux_calls_available(machine):
    assert free_memory() == 3000 * 1024


def test_a_containers_limit_counts_less_what_it_can_give_back(machine):
    limit(machine, most=2_000_000, used=900_000, reclaimable=400_000)
    assert free_memory() == 1_500_000
    limit(machine, most=2**40, used=900_000, reclaimable=0)
    assert free_memory() == 3000 * 1024
    limit(machine, most="max", used=900_000, reclaimable=0)
    assert free_memory() == 3000 * 1024


def test_elsewhere_it_is_all_memory_or_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "absent")
    monkeypatch.setattr(memory.os, "sysconf_names", {"SC_PHYS_PAGES": 0}, raising=False)
    monkeypatch.setattr(memory.os, "sysconf", lambda _: 1000, raising=False)
    assert free_memory() == 1_000_000
    monkeypatch.setattr(memory.os, "sysconf_names", {})
    assert free_memory() is None


def test_the_peak_stays_when_the_memory_is_given_back(machine, monkeypatch):
    monkeypatch.setattr(memory, "_STATUS", machine / "status")
    assert peak_memory() is None
    assert resident_memory() is None
    (machine / "status").write_text("VmRSS:\t  100 kB\nVmHWM:\t  5000 kB\n")
    assert peak_memory() == 5000 * 1024
    assert resident_memory() == 100 * 1024


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_as_before_a_pause_also_after_an_error(enabled):
    was_enabled, seen = gc.isenabled(), []

    @collection_paused()
    def fail():
        seen.append(gc.isenabled())
        raise ValueError("one")

    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(ValueError, match="one"):
            fail()
        assert (*seen, gc.isenabled()) == (False, enabled)
    finally:
        (gc.enable if was_enabled else gc.disable)()
