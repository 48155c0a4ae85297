"""report.html of the doctor, through the real command."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from rtdetr_cli.cli.main import run


@pytest.fixture
def planted(squares: Path, tmp_path: Path) -> Path:
    """A class name with markup, a row that is nan, a box that repeats, and a damaged image."""
    root = tmp_path / "set"
    shutil.copytree(squares, root)
    names = ["<script>alert(1)</script>", 'red" onerror="x']
    text = yaml.safe_dump({"train": "images/train", "val": "images/val", "names": names})
    (root / "data.yaml").write_text(text)
    labels = root / "labels" / "train"
    (labels / "0.txt").write_text("0 nan 0.5 0.1 0.1\n")
    (labels / "1.txt").write_text("0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.201 0.2\n")
    (root / "images" / "train" / "2.png").write_bytes(b"no image")
    return root / "data.yaml"


def test_the_page_has_every_finding_and_the_exit_code_stays(planted, tmp_path, capsys):
    words = ["check", f"data={planted}", "report", "json", f"project={tmp_path}"]
    assert run(words) == 3
    shown = capsys.readouterr()
    printed = json.loads(shown.out)
    assert f"saved to {tmp_path / 'check'}" in shown.err
    assert [path.name for path in (tmp_path / "check").iterdir()] == ["report.html"]
    page = (tmp_path / "check" / "report.html").read_text(encoding="utf-8")
    assert {"box-not-finite", "image-unreadable", "box-near-identical"} <= {
        one["id"] for one in printed["findings"]
    }
    assert re.findall(r"<h2>([\w-]+)</h2>", page)[1:] == [one["id"] for one in printed["findings"]]
    for severity in ("error", "warning", "note"):
        assert f"<dt>{severity}s</dt><dd>{printed[f'{severity}s']}</dd>" in page
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page  # in the table of boxes
    assert all(one.startswith("data:") for one in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert page.count("<img ") >= 2  # the row that is nan, and the pair of boxes


def test_a_clean_data_set_says_so(squares, tmp_path):
    assert run(["check", f"data={squares / 'data.yaml'}", "report", f"project={tmp_path}"]) == 0
    page = (tmp_path / "check" / "report.html").read_text(encoding="utf-8")
    assert "<dt>errors</dt><dd>0</dd>" in page
    assert "<dt>images</dt><dd>13</dd>" in page  # 9 to train, 4 to validate
    assert '<td class="text">images</td><td>9</td><td>4</td>' in page


def test_without_report_there_is_no_run_folder(squares, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["check", f"data={squares / 'data.yaml'}"]) == 0
    assert not (tmp_path / "runs").exists()
    assert run(["check", f"data={squares / 'data.yaml'}", "name=x"]) == 2
