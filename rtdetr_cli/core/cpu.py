"""CPU detection: the instruction sets, and the number of cores available to this process.

All choices that depend on the CPU (int8, bf16, `backend=auto`, threads) use this module. Standard
library only, as it runs before torch is imported.
"""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, fields
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")

_SPINS = 20_000
"""Rounds that a waiting thread of libgomp spins before it sleeps; 300,000 by default. With 2,000 a
training step of rtdetr-n takes 15 to 22 % longer on a quiet machine, with 20,000 some 3 %; beside
one busy process per core it takes 0.59 of the time (docs/benchmarks.md)."""

_ISA_CAPS = {
    "SSE41": set[str](),
    "AVX": set[str](),
    "AVX2": {"avx2"},
    "AVX2_VNNI": {"avx2", "avx_vnni"},
    "AVX2_VNNI_2": {"avx2", "avx_vnni"},
    "AVX512_CORE": {"avx2", "avx512"},
    "AVX512_CORE_VNNI": {"avx2", "avx512", "avx512_vnni"},
    "AVX512_CORE_BF16": {"avx2", "avx512", "avx512_vnni", "avx512_bf16"},
}
"""Instruction sets left by a value of `ONEDNN_MAX_CPU_ISA` (oneDNN, CPU Dispatcher Control); larger
values do not limit any that is checked here."""


@dataclass(frozen=True)
class CPUFeatures:
    """Instruction sets relevant to inference; all False outside Linux."""

    avx2: bool = False
    avx512: bool = False
    """AVX-512 F, BW, DQ and VL."""
    avx_vnni: bool = False
    """8-bit dot products in 256-bit registers."""
    avx512_vnni: bool = False
    avx512_bf16: bool = False
    amx_int8: bool = False
    amx_bf16: bool = False
    arm_dotprod: bool = False
    """8-bit dot products on Arm."""
    arm_i8mm: bool = False
    arm_bf16: bool = False

    @property
    def has_int8_dot(self) -> bool:
        """Whether one instruction accumulates 8-bit products in 32 bits.

        x86 without it adds pairs in 16 bits, where uint8 times int8 saturates.
        """
        return self.avx_vnni or self.avx512_vnni or self.arm_dotprod

    @property
    def has_bf16(self) -> bool:
        """Whether bfloat16 is faster than float32: x86 with native instructions.

        Elsewhere torch emulates it slowly; Arm has not been measured.
        """
        return self.avx512_bf16 or self.amx_bf16

    def describe(self) -> str:
        """List the instruction sets."""
        names = [field.name for field in fields(self) if getattr(self, field.name)]
        return ", ".join(names) or "no known instruction set"


def cpu_features() -> CPUFeatures:
    """Detect the instruction sets of this CPU, without those `ONEDNN_MAX_CPU_ISA` disables."""
    found = _read_features(_CPUINFO)
    left = _ISA_CAPS.get(os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper())
    if left is None:
        return found
    return CPUFeatures(**{name: getattr(found, name) and name in left for name in _names()})


def cpu_name() -> str:
    """Return the model name of the CPU, or the architecture."""
    name = _entry(_CPUINFO, "model name") or platform.processor()
    return name if name and name != "unknown" else platform.machine()


def available_cores() -> int:
    """Count the CPUs this process may use: its affinity, limited by its cgroup quota, at least 1.

    A quota of 1.5 CPUs counts as 2: one thread would leave half a CPU unused.
    """
    if hasattr(os, "sched_getaffinity"):  # Linux
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _quota(_OWN_GROUPS, _GROUPS)
    return max(1, min(cores, math.ceil(quota))) if quota else cores


def share_cores(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set OpenMP's environment before torch loads: waiting threads sleep, one thread per core.

    Spinning threads keep the thread they wait for from running: next to other jobs, training took
    up to fifteen times as long (docs/benchmarks.md). Variables set by the user are kept. Has no
    effect once torch is loaded.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        environment.setdefault("GOMP_SPINCOUNT", str(_SPINS))
    cores = available_cores()
    if cores < (os.cpu_count() or 1):
        environment.setdefault("OMP_NUM_THREADS", str(cores))


def num_threads() -> int:
    """Threads of a runtime: those of torch if it is loaded, OMP_NUM_THREADS, or one per core."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(given) if given.isdecimal() and int(given) else physical_cores()


def physical_cores(cpus: Path = Path("/sys/devices/system/cpu")) -> int:
    """Count the cores of this process; several CPUs of one core share its arithmetic units."""
    if not hasattr(os, "sched_getaffinity"):
        return available_cores()
    files = [
        cpus / f"cpu{n}" / "topology" / "thread_siblings_list" for n in os.sched_getaffinity(0)
    ]
    return min(available_cores(), len({_text(file) or str(file) for file in files}))


def _read_features(cpuinfo: Path) -> CPUFeatures:
    flags = set(_entry(cpuinfo, "flags").split()) or set(_entry(cpuinfo, "Features").split())
    return CPUFeatures(
        avx2="avx2" in flags,
        avx512={"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags,
        avx_vnni="avx_vnni" in flags,
        avx512_vnni="avx512_vnni" in flags,
        avx512_bf16="avx512_bf16" in flags,
        amx_int8="amx_int8" in flags,
        amx_bf16="amx_bf16" in flags,
        arm_dotprod="asimddp" in flags,
        arm_i8mm="i8mm" in flags,
        arm_bf16="bf16" in flags,
    )


def _names() -> list[str]:
    return [field.name for field in fields(CPUFeatures)]


def _entry(cpuinfo: Path, key: str) -> str:
    """Return the value of a key for the first CPU, or an empty string."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def _quota(own_groups: Path, groups: Path) -> float | None:
    """Return the CPU quota of the control groups: the minimum over this group and its parents."""
    try:
        lines = own_groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found: list[float] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:  # version 2: one hierarchy for all
            found += _quotas_above([groups, groups / "unified"], path, _quota_v2)
        elif "cpu" in controllers.split(","):
            found += _quotas_above([groups / controllers, groups / "cpu"], path, _quota_v1)
    return min(found, default=None)


def _quotas_above(
    roots: Iterable[Path], path: str, read: Callable[[Path], float | None]
) -> list[float]:
    """Quotas of a group and its parents; in a container, its own group is the root."""
    found = []
    for root in roots:
        group = root / path.strip("/")
        found += [
            read(folder) for folder in (group, *group.parents) if root in (folder, *folder.parents)
        ]
    return [quota for quota in found if quota]


def _quota_v2(group: Path) -> float | None:
    limit, _, period = _text(group / "cpu.max").partition(" ")
    return _ratio(limit, period)


def _quota_v1(group: Path) -> float | None:
    return _ratio(_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us"))


def _ratio(limit: str, period: str) -> float | None:
    """Microseconds per period; `max` and -1 mean no limit."""
    is_limited = limit.isdecimal() and period.isdecimal() and int(period) > 0
    return int(limit) / int(period) if is_limited else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
