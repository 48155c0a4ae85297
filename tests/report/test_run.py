"""Date, versions and command of a run."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import torch

from rtdetr_cli.core.version import VERSION
from rtdetr_cli.report.run import run_facts, short_path


def test_the_date_has_its_zone_and_the_versions_are_those_in_use():
    found = dict(run_facts("rtdetr val data=a.yaml"))
    age = datetime.now(timezone.utc) - datetime.strptime(found["date"], "%Y-%m-%d %H:%M %z")
    assert timedelta(0) <= age < timedelta(minutes=2)
    assert found["versions"].startswith(f"rtdetr {VERSION}, PyTorch {torch.__version__}, Python 3.")
    assert found["command"] == "rtdetr val data=a.yaml"


def test_a_path_is_shown_without_the_folders_of_the_user():
    assert short_path(Path("/home/me/data/val/1.jpg")) == "val/1.jpg"
    assert short_path(Path("1.jpg")) == "1.jpg"
