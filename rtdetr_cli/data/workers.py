"""Data loading processes: their number, their start, and what it means when one is lost."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rtdetr_cli.core.cpu import available_cores
from rtdetr_cli.core.distributed import local_world_size
from rtdetr_cli.core.errors import BackendError, UsageError
from rtdetr_cli.core.opencv import cv2

_LOST = (
    "a data loading process was killed by the system, most often for lack of memory; "
    "give a smaller workers=; 0 loads in the main process"
)


def num_workers(wanted: int | None) -> int:
    """Limit the default to the number of cores; more processes are slower."""
    cores = available_cores() // local_world_size()
    return max(1, min(4, cores)) if wanted is None else wanted


def start_worker(_number: int) -> None:
    """Use one thread and a separate process group, so that Ctrl-C reaches the main process only."""
    cv2.setNumThreads(0)
    if hasattr(os, "setpgrp"):  # not on Windows
        os.setpgrp()


@contextmanager
def explain_lost_worker() -> Iterator[None]:
    """Convert the error PyTorch raises when a loading process ends, at any time.

    Raises:
        BackendError: a loading process was killed.
        UsageError: loading processes run the user's script again.
    """
    try:
        yield
    except BrokenPipeError as error:  # it ended before it read its task
        script = _unguarded_script()
        if script is None:
            raise
        raise UsageError(_explain(script)) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        script = _unguarded_script()
        raise (BackendError(_LOST) if script is None else UsageError(_explain(script))) from error


def leave_if_importing_main() -> None:
    """Exit a process that is running the user's script again, only to import it.

    A spawned process first imports the main script; without `if __name__ == "__main__":` this
    calls `train` again (Python documentation, multiprocessing, "Safe importing of main module").
    The parent process explains it; see `explain_lost_worker`.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(1)


def _unguarded_script() -> Path | None:
    """The main script, if spawned processes import it and it does not check `__name__`."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file is None or multiprocessing.get_start_method() == "fork":
        return None
    try:
        text = Path(file).read_text("utf-8", errors="replace")
    except OSError:
        return None
    return None if "__name__" in text else Path(file)


def _explain(script: Path) -> str:
    return (
        f"each data loading process runs {script.name} again; put what it does below "
        'if __name__ == "__main__": or give workers=0'
    )
