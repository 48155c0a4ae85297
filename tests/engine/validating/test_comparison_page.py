"""report.html of a comparison, through the real command."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rtdetr_cli.cli.main import run


@pytest.fixture
def words(squares: Path, tmp_path: Path) -> list[str]:
    """a finds every box, b only those of the image 0, and another one in the image 2."""
    rows = []
    for path in (squares / "labels" / "val").iterdir():
        for line in path.read_text().splitlines():
            label, x, y, w, h = map(float, line.split())
            box = [80 * (x - w / 2), 64 * (y - h / 2), 80 * w, 64 * h]
            row = {"image_id": int(path.stem), "category_id": int(label) + 1, "bbox": box}
            rows.append(row | {"score": 0.9})
    few = [row for row in rows if row["image_id"] == 0]
    few.append({"image_id": 2, "category_id": 1, "bbox": [70, 50, 9, 9], "score": 0.95})
    (tmp_path / "all.json").write_text(json.dumps(rows))
    (tmp_path / "<b>few.json").write_text(json.dumps(few))
    models = [str(tmp_path / "all.json"), str(tmp_path / "<b>few.json")]
    return ["compare", *models, f"data={squares / 'data.yaml'}", "resamples=100"]


def test_the_page_has_the_verdict_the_tables_and_the_images_that_differ(words, tmp_path, capsys):
    assert run([*words, "json", "report", f"project={tmp_path}"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [path.name for path in (tmp_path / "compare").iterdir()] == ["report.html"]
    page = (tmp_path / "compare" / "report.html").read_text(encoding="utf-8")
    assert printed["verdict"].split(" (")[0] in page
    assert "all.json (a) and &lt;b&gt;few.json (b)" in page
    assert "<b>" not in page
    ap = printed["metrics"][0]
    difference = f"{100 * ap['difference']:+.1f}"
    assert f'<td class="text">AP</td><td>100.0</td><td>{100 * ap["b"]:.1f}</td>' in page
    assert f">{difference}</td>" in page
    assert re.findall(r"<figcaption>val/(\d).png", page) == [
        Path(one["path"]).stem for one in printed["images"]
    ]
    assert page.count("<img ") == 2 * len(printed["images"]) == 6
    assert "all.json: F1 1.00, errors: 0" in page
    assert "few.json: F1 0.00, errors: 2" in page  # one missed, one false


def test_images_limits_the_gallery(words, tmp_path):
    assert run([*words, "report", f"project={tmp_path}", "images=1"]) == 0
    assert (tmp_path / "compare" / "report.html").read_text("utf-8").count("<img ") == 2


def test_without_report_there_is_no_run_folder(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(words) == 0
    assert not (tmp_path / "runs").exists()
