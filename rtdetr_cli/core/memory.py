"""Available memory, the memory of this process, and its garbage collection."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_STATUS = Path("/proc/self/status")
_CGROUP = Path("/sys/fs/cgroup")


def free_memory() -> int | None:
    """Bytes available without swapping, within a container's limit; None if unknown.

    All memory of the machine on systems that do not report what is available (macOS).
    """
    try:
        available = 1024 * int(_field(_MEMINFO, "MemAvailable:"))
    except OSError:
        return _all_memory()
    try:
        used = int((_CGROUP / "memory.current").read_text())
        reclaimable = int(_field(_CGROUP / "memory.stat", "inactive_file"))
        limit = int((_CGROUP / "memory.max").read_text())
    except (OSError, ValueError):  # no container, or its limit is the string max
        return available
    return min(available, limit - used + reclaimable)


def peak_memory() -> int | None:
    """Peak resident memory of this process in bytes; None except on Linux.

    Not from `getrusage`, which starts with the peak of the parent process.
    """
    try:
        return 1024 * int(_field(_STATUS, "VmHWM:"))
    except OSError:
        return None


def resident_memory() -> int | None:
    """Resident memory of this process in bytes; None except on Linux."""
    try:
        return 1024 * int(_field(_STATUS, "VmRSS:"))
    except OSError:
        return None


@contextmanager
def collection_paused() -> Iterator[None]:
    """No search for garbage in cycles, while much is made that stays.

    It takes 0.2 s of the import of torch, which makes 180,000 objects.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _field(path: Path, name: str) -> str:
    """The number after a field name at the start of a line."""
    found = re.search(rf"^{name}\s+(\d+)", path.read_text(), re.MULTILINE)
    return found[1] if found else "0"


def _all_memory() -> int | None:
    names = getattr(os, "sysconf_names", {})  # absent on Windows
    if "SC_PHYS_PAGES" not in names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
