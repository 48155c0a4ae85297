"""Runs seeded mutations of inputs from outside: `campaign.py [KIND ...] --cases N`.

A kind is a file of kinds/ with a function `case(rng, folder)`: it makes one damaged input below
`folder` with nothing but `rng` for chance, and gives it to the toolkit. Right is that it is
accepted or that an RTDETRError refuses it; a traceback, "a defect", a signal, more than SECONDS or
more than MEMORY_MB is a finding. Case N of a kind is the same on every machine.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
KINDS = {path.stem: path for path in sorted((FOLDER / "kinds").glob("*.py"))}
SECONDS = 20.0
"""For one case; the first of a process also imports."""
IMPORT_SECONDS = 60.0
MEMORY_MB = 1500
"""That a case may take beyond what the process had before."""


@dataclass
class Tally:
    """What became of the cases of one kind."""

    kind: str
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    peak_mb: float = 0.0
    slowest_s: float = 0.0
    seconds: float = 0.0

    def line(self) -> str:
        parts = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))
        return (
            f"{self.kind}: {self.outcomes.total()} cases: {parts}; peak +{self.peak_mb:.0f} MB, "
            f"slowest {self.slowest_s:.1f} s, {self.seconds:.0f} s in all"
        )


def run_kind(kind: str, cases: int, first: int = 0) -> Tally:
    """Run `cases` cases; a process that ended is started again behind the case that ended it."""
    tally, began, number = Tally(kind), time.monotonic(), first
    while number < first + cases:
        number = _run_process(tally, number, first + cases)
    tally.seconds = time.monotonic() - began
    return tally


def _run_process(tally: Tally, first: int, stop: int) -> int:
    """One worker from case `first` on; returns the first case that it has not run."""
    command = [sys.executable, str(FOLDER / "worker.py"), str(KINDS[tally.kind])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RTDETR_OFFLINE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(FOLDER.parents[1]), *filter(None, [environment.get("PYTHONPATH")])]
    )
    with subprocess.Popen(
        [*command, str(first), str(stop), str(MEMORY_MB)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as process:
        number, wait_s = first - 1, IMPORT_SECONDS
        while line := _line(process, wait_s):
            entry = json.loads(line)
            if "case" in entry:
                number = entry["case"]
                wait_s = SECONDS + (IMPORT_SECONDS if number == first else 0)
                continue
            tally.outcomes[entry["outcome"]] += 1
            tally.peak_mb = max(tally.peak_mb, entry["peak_mb"])
            if number > first:
                tally.slowest_s = max(tally.slowest_s, entry["seconds"])
            if entry["outcome"] == "defect":
                tally.findings.append(f"{tally.kind} {number}: {entry['text']}")
            wait_s = SECONDS
            if number == stop - 1:
                process.wait()
                return stop
        is_late = process.poll() is None
        process.kill()
        errors = process.stderr.read().decode(errors="replace") if process.stderr else ""
    outcome = "time-out" if is_late else "crash"
    tally.outcomes[outcome] += 1
    code = process.returncode
    tally.findings.append(f"{tally.kind} {number}: {outcome}, exit {code}: {errors[-2000:]}")
    return max(number, first) + 1


def _line(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """A line of the worker; empty when it ended or is silent for too long."""
    stream = process.stdout
    assert stream is not None
    buffer, deadline = b"", time.monotonic() + seconds
    while not buffer.endswith(b"\n"):
        ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
        letter = os.read(stream.fileno(), 1) if ready else b""
        if not letter:
            return b""
        buffer += letter
    return buffer


def main() -> int:
    """Print a line a kind and every finding; 1 where there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[[], *KINDS], default=[])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    options = parser.parse_args()
    failed = False
    for kind in options.kinds or KINDS:
        tally = run_kind(kind, options.cases, options.first)
        sys.stdout.write("\n".join([tally.line(), *tally.findings]) + "\n")
        sys.stdout.flush()
        failed |= bool(tally.findings)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
