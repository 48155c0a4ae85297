"""Some cases of every kind in the fast tests; `make fuzz` runs 2,000 of each.

`hostile_folder.py` runs the command on 500 files, in several ways.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
CAMPAIGN = runpy.run_path(str(FOLDER / "campaign.py"), run_name="campaign")


@pytest.mark.parametrize("kind", CAMPAIGN["KINDS"])
def test_damaged_inputs_are_accepted_or_refused_in_a_sentence(kind: str) -> None:
    tally = CAMPAIGN["run_kind"](kind, 100)

    assert not tally.findings, "\n".join([tally.line(), *tally.findings])


def test_each_file_of_a_hostile_folder_is_detected_in_or_named_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER.parents[1]), *sys.path]))
    hostile = runpy.run_path(str(FOLDER / "hostile_folder.py"), run_name="hostile_folder")
    planted = hostile["plant"](tmp_path / "files", 60)
    arguments = ("json=lines", "save=false", "imgsz=64", "batch=4")
    run = hostile["run_predict"]("rtdetr-n.yaml", tmp_path / "files", arguments, tmp_path)
    assert run.faults(planted) == []
    assert len(run.errors) >= len(planted.broken) == 23
    assert len(run.rows) >= len(planted.sound) == 5
