"""Time contestants in turns, each in its own process.

Only the standard library, because a contestant may run in an environment without rtdetr. The
protocol is one line each way: a contestant prints `ready`, then reads a number of calls and prints
a JSON list of {measure: milliseconds}, repeatedly. Contestants are interleaved because the speed
of a shared machine drifts by more than they differ.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

Times = dict[str, float]
PEER_ENVIRONMENT = {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}


def reserve_stdout() -> IO[str]:
    """Reserve stdout for replies; prints of libraries go to stderr from here on."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return replies


def serve(replies: IO[str], call: Callable[[], Times]) -> None:
    """Run as a contestant until stdin ends; the first call warms up."""
    call()
    replies.write("ready\n")
    for line in sys.stdin:
        replies.write(json.dumps([call() for _ in range(int(line))]) + "\n")


class Contestant:
    """One process; its stderr is logged in `folder` and shown if it fails."""

    def __init__(self, name: str, command: Sequence[str | Path], folder: Path) -> None:
        self.name = name
        self._log = folder / f"{name.replace(' ', '-')}.log"
        configured = {**PEER_ENVIRONMENT, "YOLO_CONFIG_DIR": str(folder)}
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("w"),
            text=True,
            bufsize=1,
            cwd=folder,
            env={**os.environ, **configured},
        )
        if self._read_reply() != "ready\n":
            raise SystemExit(f"{name} did not start")

    def run(self, calls: int) -> list[Times]:
        """Have it make some calls; the other contestants wait."""
        assert self._process.stdin
        self._process.stdin.write(f"{calls}\n")
        return json.loads(self._read_reply())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def _read_reply(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} stopped:\n{self._log.read_text()[-3000:]}")
        return line


def race(contestants: Sequence[Contestant], rounds: int, calls: int) -> dict[str, list[Times]]:
    """Run every contestant in every round; the first one rotates."""
    times: dict[str, list[Times]] = {contestant.name: [] for contestant in contestants}
    for number in range(rounds):
        first = number % len(contestants)
        for contestant in [*contestants[first:], *contestants[:first]]:
            times[contestant.name] += contestant.run(calls)
        sys.stderr.write(f"round {number + 1} of {rounds}\n")
    for contestant in contestants:
        contestant.close()
    return times


def report(times: dict[str, list[Times]]) -> None:
    """Print a Markdown table of medians and their ratios to the last contestant."""
    measures = list(next(iter(times.values()))[0])
    medians = {
        name: [statistics.median(row[measure] for row in rows) for measure in measures]
        for name, rows in times.items()
    }
    reference = list(medians.values())[-1]
    columns = [f"{measure}, ms | ratio" for measure in measures]
    lines = [
        f"| contestant | {' | '.join(columns)} | calls |",
        "|---" * (2 + 2 * len(measures)) + "|",
    ]
    for name, row in medians.items():
        cells = [
            f"{ms:.1f} | {ms / base:.3f}" if base else f"{ms:.1f} | -"
            for ms, base in zip(row, reference, strict=True)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {len(times[name])} |")
    sys.stdout.write("\n".join(lines) + "\n")
