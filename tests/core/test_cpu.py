"""Instructions from /proc/cpuinfo, cores from affinity and quota, and what OpenMP reads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rtdetr_cli.core import cpu
from rtdetr_cli.core.cpu import available_cores, cpu_features, cpu_name, share_cores

# `flags` of four machines, shortened to what matters here and some neighbours.
HASWELL = ("fma", "avx", "avx2", "bmi2")
SKYLAKE_X = (*HASWELL, "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512cd")
ZEN_4 = (*SKYLAKE_X, "avx512_bf16", "avx512_vnni", "avx512_bitalg")
SAPPHIRE_RAPIDS = (*ZEN_4, "avx_vnni", "amx_bf16", "amx_tile", "amx_int8")
CPUS = [
    (HASWELL, False, False, "avx2"),
    (SKYLAKE_X, False, False, "avx2, avx512"),
    (ZEN_4, True, True, "avx2, avx512, avx512_vnni, avx512_bf16"),
    (
        SAPPHIRE_RAPIDS,
        True,
        True,
        "avx2, avx512, avx_vnni, avx512_vnni, avx512_bf16, amx_int8, amx_bf16",
    ),
    ((), False, False, "no known instruction set"),
]


@pytest.mark.parametrize(("flags", "int8", "bf16", "text"), CPUS)
def test_instructions_are_read_from_the_flags(flags, int8, bf16, text, set_cpu):
    set_cpu(*flags)
    features = cpu_features()
    assert (features.has_int8_dot, features.has_bf16) == (int8, bf16)
    assert features.describe() == text
    assert cpu_name() == "made up"


def test_arm_lists_features(tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nFeatures\t: fp asimd asimddp i8mm bf16\n")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(cpu, "_CPUINFO", cpuinfo)
    features = cpu_features()
    assert features.describe() == "arm_dotprod, arm_i8mm, arm_bf16"
    assert features.has_int8_dot
    assert not features.has_bf16  # nobody has measured it there


@pytest.mark.parametrize(
    ("cap", "text"),
    [
        ("AVX2", "avx2"),
        ("avx512_core_vnni", "avx2, avx512, avx512_vnni"),
        ("DEFAULT", "avx2, avx512, avx512_vnni, avx512_bf16"),
    ],
)
def test_what_onednn_is_told_not_to_use_is_not_there(cap, text, set_cpu, monkeypatch):
    set_cpu(*ZEN_4)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)
    assert cpu_features().describe() == text


def test_without_proc_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "absent")
    assert cpu_features().describe() == "no known instruction set"
    assert cpu_name()


def groups(folder: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A /proc/self/cgroup and a tree of control groups."""
    own_groups, root = folder / "cgroup", folder / "groups"
    own_groups.write_text(own)
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return own_groups, root


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),  # a container's own namespace
        ("0::/a/b\n", {"a/cpu.max": "50000 100000\n", "a/b/cpu.max": "max 100000\n"}, 0.5),
        ("0::/a\n", {"a/cpu.max": "max 100000\n"}, None),
        ("0::/gone\n", {"cpu.max": "300000 100000\n"}, 3.0),  # a group of the host's namespace
        (
            "3:cpu,cpuacct:/job\n0::/\n",
            {
                "cpu,cpuacct/job/cpu.cfs_quota_us": "25000\n",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            0.25,
        ),
        ("3:cpuset:/\n", {"cpu.max": "50000 100000\n"}, None),
        ("0::/\n", {"cpu.max": "50000 0\n"}, None),
    ],
)
def test_a_quota_is_the_least_of_the_groups_above(own, files, quota, tmp_path):
    assert cpu._quota(*groups(tmp_path, own, files)) == quota


@pytest.mark.parametrize(("limit", "cores"), [("50000", 1), ("150000", 2), ("800000", 4)])
def test_cores_are_those_of_affinity_and_quota(limit, cores, tmp_path, monkeypatch):
    own, root = groups(tmp_path, "0::/\n", {"cpu.max": f"{limit} 100000\n"})
    monkeypatch.setattr(cpu, "_OWN_GROUPS", own)
    monkeypatch.setattr(cpu, "_GROUPS", root)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert available_cores() == cores


def test_openmp_is_told_to_sleep_and_to_keep_to_its_cores(monkeypatch):
    monkeypatch.setattr(cpu, "available_cores", lambda: 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    environment: dict[str, str] = {}
    share_cores(environment)
    assert environment == {
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": str(cpu._SPINS),
        "OMP_NUM_THREADS": "1",
    }


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setattr(cpu, "available_cores", lambda: 8)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    environment = {"OMP_WAIT_POLICY": "ACTIVE"}
    share_cores(environment)
    assert environment == {"OMP_WAIT_POLICY": "ACTIVE"}
    spins = {"GOMP_SPINCOUNT": "7", "OMP_NUM_THREADS": "3"}
    share_cores(spins)
    assert spins == {"GOMP_SPINCOUNT": "7", "OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "PASSIVE"}


def test_the_package_shares_cores_before_torch_is_imported():
    program = (
        "import sys, os, rtdetr_cli; assert 'torch' not in sys.modules;"
        "print(os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert run.stdout == "PASSIVE\n"
