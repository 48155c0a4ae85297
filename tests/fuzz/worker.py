"""Runs the cases of one kind in this process and prints a line before and after each.

Started by campaign.py, which ends it when a case takes too long or too much memory.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import runpy
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from rtdetr_cli.core.errors import RTDETRError

DEFECT = "(a bug"


def run(kind: Path, first: int, stop: int, memory_mb: int) -> None:
    """Run cases `first` to `stop` - 1; each has a folder and a random generator of its own."""
    case = runpy.run_path(str(kind))["case"]
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries print too
    limit = _data_bytes() + memory_mb * 1_000_000
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    before_mb = _peak_mb()
    for number in range(first, stop):
        lines.write(f"{json.dumps({'case': number})}\n")
        folder = Path(tempfile.mkdtemp(prefix=f"{kind.stem}-{number}-"))
        began = time.monotonic()
        outcome, text = _outcome(case, number, folder)
        shutil.rmtree(folder, ignore_errors=True)
        entry = {"outcome": outcome, "text": text, "seconds": time.monotonic() - began}
        lines.write(f"{json.dumps({**entry, 'peak_mb': _peak_mb() - before_mb})}\n")


def _outcome(case: object, number: int, folder: Path) -> tuple[str, str]:
    """`accepted`, `refused` with the sentence, or `defect` with the traceback."""
    os.environ["HOME"] = os.environ["RTDETR_HOME"] = str(folder / "home")
    os.chdir(folder)
    printed = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(printed):
            warnings.simplefilter("ignore")
            case(random.Random(number), folder)
    except RTDETRError as error:
        return "refused", str(error)
    except BaseException:  # noqa: BLE001  (whatever comes is the finding)
        return "defect", traceback.format_exc()
    finally:
        os.chdir("/")
    return ("defect", printed.getvalue()) if DEFECT in printed.getvalue() else ("accepted", "")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def _data_bytes() -> int:
    status = Path("/proc/self/status")
    if not status.is_file():
        return 8_000_000_000
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmData"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    run(Path(sys.argv[1]), *map(int, sys.argv[2:]))
