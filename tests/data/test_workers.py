"""Loading processes: a script without a main guard is named, with the line it lacks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOAD = """
import multiprocessing
from pathlib import Path
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.data.loader import EvalLoader
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.data.workers import explain_lost_worker, leave_if_importing_main

def load():
    leave_if_importing_main()
    with Path("started").open("a") as file:
        file.write("x")
    dataset = open_split(load_data("DATA"), "train")
    with explain_lost_worker():
        print(sum(len(batch) for batch in EvalLoader(dataset, 2, Preprocessing(), 1)))
"""
SPAWN = 'multiprocessing.set_start_method("spawn", force=True)\n'


@pytest.fixture
def load(yolo_folder):
    return LOAD.replace("DATA", str(yolo_folder("0 .5 .5 .1 .1")))


def run_script(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "load_it.py").write_text(text)
    return subprocess.run(
        [sys.executable, "load_it.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_script_without_a_main_guard_is_told_that_line(load, tmp_path):
    found = run_script(load + SPAWN + "load()\n", tmp_path)
    last = found.stderr.splitlines()[-1]
    assert last.endswith(
        "UsageError: each data loading process runs load_it.py again; put what it does below "
        'if __name__ == "__main__": or give workers=0'
    )
    assert (tmp_path / "started").read_text() == "x"  # the second run left at once, without output
    assert "bootstrapping" not in found.stderr  # Python's own words, from each process


def test_a_script_with_a_main_guard_loads(load, tmp_path):
    guarded = load + 'if __name__ == "__main__":\n    ' + SPAWN + "    load()\n"
    found = run_script(guarded, tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    assert int(found.stdout) > 0


@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_other_runtime_errors_pass(start, monkeypatch):
    from rtdetr_cli.data import workers

    monkeypatch.setattr(workers.multiprocessing, "get_start_method", lambda: start)
    with pytest.raises(RuntimeError, match="other"), workers.explain_lost_worker():
        raise RuntimeError("other")
