"""`rtdetr models` through the real command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from rtdetr_cli.cli.main import run
from rtdetr_cli.weights.catalog import BACKBONES, CATALOG
from rtdetr_cli.weights.licence import ASKED, CODE, DATA, DFINE_OBJECTS365

ROOT = Path(__file__).parents[2]


def test_the_table_lists_every_file_and_what_is_downloaded(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RTDETR_HOME", str(tmp_path))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "rtdetr-l.pt").touch()
    CATALOG["rtdetr-x.pt"].original.touch()
    BACKBONES["presnet50"].original.touch()
    assert run(["models"]) == 0
    shown, notes = capsys.readouterr().out.split("\nM, GFLOPs: ")
    detectors, backbones = shown.split("\nto train from, with pretrained=backbone")
    rows = [line.split() for line in detectors.splitlines() if ".pt" in line]
    assert {row[0] for row in rows} == CATALOG.keys()
    assert ["rtdetr-l.pt", "52.9", "71.5", "32", "110", "8.77"] in [row[:6] for row in rows]
    assert ["deimv2-atto.pt", "23.8", "0.5", "0.8", "1.10"] in [row[:5] for row in rows]
    assert {row[0] for row in rows if row[-1] == "yes"} == {"rtdetr-l.pt", "rtdetr-x.pt"}
    assert len([row for row in rows if row[-1] == "Drive"]) == 15
    titles = [line.strip() for line in detectors.splitlines() if line.strip() and ".pt" not in line]
    assert titles[::2] == ["RT-DETR", "RT-DETRv2", "D-FINE", "DEIM", "RT-DETRv4", "DEIMv2"]
    head, *rows = [line.split() for line in backbones.splitlines() if line.strip()]
    assert head[:3] == ["backbone", "architecture", "MB"]
    assert {row[0] for row in rows} == BACKBONES.keys()
    assert ["presnet50", "rtdetr-r50", "94", "ImageNet", "not", "stated", "[10]", "yes"] in rows
    assert {row[0] for row in rows if row[-1] == "yes"} == {"presnet50"}
    *_, title, best, _, _ = notes.splitlines()
    assert title == "what to start from"
    assert best.startswith("fine-tune: rtdetr-r50-o365.pt, 55.2 AP")
    assert f"] {ASKED.describe()}\n" in notes
    assert f"] {DFINE_OBJECTS365.describe()}\n" in notes
    assert all(f"\n{line}" in notes for line in (*CODE, *DATA))


def test_rows_fit_into_80_characters(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RTDETR_HOME", str(tmp_path))
    assert run(["models"]) == 0
    tables, _ = capsys.readouterr().out.split("\nlicences of the weights")
    assert max(len(line.rstrip()) for line in tables.splitlines()) <= 80


def test_json_has_urls_and_paths(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RTDETR_HOME", str(tmp_path))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "rtdetr-l.pt").touch()
    assert run(["models", "json=true"]) == 0
    found = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert found["rtdetr-l.pt"]["path"] == str(tmp_path / "weights" / "rtdetr-l.pt")
    assert found["rtdetr-x.pt"]["path"] is None
    assert found["rtdetrv2-r50-dsp.pt"]["sampling"] == "discrete"
    assert found["rtdetrv2-r50-dsp.pt"]["url"].endswith("/v0.1/rtdetrv2_r50vd_dsp_1x_coco.pth")
    assert found["rtdetr-r50.pt"]["licence"] == {
        "name": "Apache-2.0",
        "stated_by": "the model card of its copy on Hugging Face",
        "stated_where": "https://huggingface.co/PekingU/rtdetr_r50vd",
    }
    assert found["rtdetr-l.pt"]["licence"]["name"] is None
    assert found["rtdetr-l.pt"]["kind"] == "detector"
    assert found["hgnetv2-l"]["kind"] == "backbone"
    assert found["hgnetv2-l"]["path"] is None
    assert found["hgnetv2-l"]["url"].endswith("/PPHGNetV2_L_ssld_pretrained_from_paddle.pth")
    assert found["deimv2-atto.pt"]["preprocessing"]["size_hw"] == [320, 320]
    assert found["rtdetrv4-l.pt"]["url"].startswith("https://drive.google.com/file/d/")
    assert found["rtdetrv4-l.pt"]["save_as"] == str(tmp_path / "weights" / "rtdetrv4-l.pth")
    assert found["rtdetr-l.pt"]["preprocessing"] == {"size_hw": [640, 640], "antialias": True}


def test_the_list_needs_no_torch():
    code = (
        "import sys; from rtdetr_cli.cli.main import run; assert run(['models', 'json']) == 0; "
        "assert not {'torch', 'numpy', 'yaml'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
