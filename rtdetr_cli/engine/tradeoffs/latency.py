"""Latency of the settings of `rtdetr tradeoff`: in turns, so that a drift of the machine cancels.

One process has the weights in each precision and switches between their settings; an exported file
has its own. engine/benchmarking/worker.py runs in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import NamedTuple

from rtdetr_cli.core.console import progress, say
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.core.status import counted
from rtdetr_cli.engine.benchmarking.process import WorkerProcess
from rtdetr_cli.engine.tradeoffs.rows import Setting

CALLS_PER_TURN = 5
"""Consecutive timed calls of one setting, after one that is not timed."""
WARM_UP = 3


class _Opened(NamedTuple):
    """What one process has open: a file, and its precision."""

    file: str
    half: bool


def _opened(setting: Setting, file: str) -> _Opened:
    return _Opened(file, setting.half and not setting.is_exported)


def time_settings(
    files: Mapping[Setting, str], device: str | None, runs: int
) -> dict[Setting, list[float]]:
    """Time single images in every setting.

    Args:
        files: the weights or the exported file of each setting.
        device: as in `load_detector`; exported files run on the CPU.
        runs: timed calls of each, rounded up to whole turns.

    Returns:
        Milliseconds of each call, from a prepared image to detections.

    Raises:
        BackendError: a process ended or could not run a setting.
    """
    processes: dict[_Opened, WorkerProcess] = {}
    try:
        for one, file in files.items():
            opened = _opened(one, file)
            if opened not in processes:
                processes[opened] = WorkerProcess()
                _open(processes[opened], opened, "cpu" if one.is_exported else device)
        return _in_turns(files, processes, -(-runs // CALLS_PER_TURN))
    finally:
        for process in processes.values():
            process.close()


def _open(process: WorkerProcess, opened: _Opened, device: str | None) -> None:
    first = {"model": opened.file, "half": opened.half, "device": device}
    _ask(process, first | {"timeout": None, "size_hw": None})


def _in_turns(
    files: Mapping[Setting, str], processes: Mapping[_Opened, WorkerProcess], turns: int
) -> dict[Setting, list[float]]:
    """Warm up every setting, say how long it will take, then time them; the first one rotates."""
    process_of = {one: processes[_opened(one, file)] for one, file in files.items()}
    warm_ms = [median(_run(process, one, WARM_UP)) for one, process in process_of.items()]
    seconds = sum(warm_ms) * turns * (1 + CALLS_PER_TURN) / 1000
    say(
        f"timing {counted(len(files), 'setting')}, {turns * CALLS_PER_TURN} calls each: "
        f"{seconds:.0f} s"
    )
    order, times_ms = list(files), {one: list[float]() for one in files}
    for turn in progress(range(turns), turns, "latency"):
        start = turn * len(order) // turns
        for one in order[start:] + order[:start]:
            times_ms[one] += _run(process_of[one], one, 1 + CALLS_PER_TURN)[1:]
    return times_ms


def _run(process: WorkerProcess, setting: Setting, calls: int) -> list[float]:
    """Milliseconds of some calls of one setting."""
    request = {"size_hw": setting.size_hw, "batch": 1, "calls": calls}
    speed = [setting.decoder_layers, setting.num_queries]
    times_ms: list[float] = _ask(process, request | {"speed": speed})["times_ms"]
    return times_ms


def _ask(process: WorkerProcess, request: dict[str, object]) -> dict[str, list[float]]:
    reply: dict[str, list[float]] = process.ask(request)
    if "error" in reply:
        raise BackendError(f"latency cannot be measured: {reply['error']}")
    return reply
