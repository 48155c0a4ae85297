"""How much memory this process may still take, and how much it has taken."""

from __future__ import annotations

import os
import re
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_STATUS = Path("/proc/self/status")
_CGROUP = Path("/sys/fs/cgroup")


def free_memory() -> int | None:
    """Bytes that can be taken without swapping, a container's limit counted; None: unknown.

    Where the system does not say what is free (macOS), it is all memory.
    """
    try:
        available = 1024 * int(_field(_MEMINFO, "MemAvailable:"))
    except OSError:
        return _all_memory()
    try:
        used = int((_CGROUP / "memory.current").read_text())
        reclaimable = int(_field(_CGROUP / "memory.stat", "inactive_file"))
        limit = int((_CGROUP / "memory.max").read_text())
    except (OSError, ValueError):  # no container, or one whose limit is the word max
        return available
    return min(available, limit - used + reclaimable)


def peak_memory() -> int | None:
    """Most bytes that this process has held at once; None where only Linux would know.

    Not `getrusage`: there a process that was started by a larger one begins with that one's peak.
    """
    try:
        return 1024 * int(_field(_STATUS, "VmHWM:"))
    except OSError:
        return None


def _field(path: Path, name: str) -> str:
    """The number after a name at the start of a line."""
    found = re.search(rf"^{name}\s+(\d+)", path.read_text(), re.MULTILINE)
    return found[1] if found else "0"


def _all_memory() -> int | None:
    names = getattr(os, "sysconf_names", {})  # absent on Windows
    if "SC_PHYS_PAGES" not in names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
