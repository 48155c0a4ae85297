"""report.html through the real command: all numbers, the worst images, nothing loaded, no markup
from class names or paths."""

from __future__ import annotations

import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from rtdetr_cli.cli.main import run
from rtdetr_cli.engine.validating.page import difference_rows
from rtdetr_cli.evaluation.errors import ADVICE, KINDS
from rtdetr_cli.evaluation.metrics import Difference
from rtdetr_cli.report.parts import Cell


class Page(HTMLParser):
    """Elements, what they load, the text, and the cells of all tables."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.cells: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in {"src", "href", "srcset"}]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data):
        self.text += data
        if self.tags and self.tags[-1] == "td":
            self.cells.append(data)


def words(model: Path, data: Path, project: Path, *more: str) -> list[str]:
    keys = {"model": model, "data": data, "project": project, "imgsz": 64, "workers": 0}
    return ["val", *(f"{key}={value}" for key, value in keys.items()), "device=cpu", *more]


def test_the_page_has_the_numbers_of_the_metrics_and_is_the_only_file(
    checkpoint, squares, tmp_path, capsys
):
    command = words(checkpoint, squares / "data.yaml", tmp_path, "report", "plots=false", "json")
    assert run(command) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [path.name for path in (tmp_path / "val").iterdir()] == ["report.html"]
    page = Page(tmp_path / "val" / "report.html")
    for name, value in printed["stats"].items():
        shown = page.cells[page.cells.index(name) + 1]
        assert shown == (f"{value:.3f}" if value >= 0 else "-")
    assert [one["kind"] for one in printed["errors"]] == list(KINDS.values())
    for one, advice in zip(printed["errors"], ADVICE, strict=True):
        at = page.cells.index(one["kind"])
        assert page.cells[at + 1 : at + 4] == [str(one["count"]), f"{one['cost']:.4f}", advice]
    assert f"rtdetr val model={checkpoint} data={squares / 'data.yaml'}" in page.text
    assert "report=true" in page.text
    assert "Difference from the baseline" not in page.text


def test_the_page_loads_nothing_and_shows_the_worst_images(checkpoint, squares, tmp_path):
    assert run(words(checkpoint, squares / "data.yaml", tmp_path, "report", "plots=false")) == 0
    page = Page(tmp_path / "val" / "report.html")
    assert all(one.startswith("data:") for one in page.loads)
    assert not {"script", "link rel=stylesheet", "iframe"} & set(page.tags)
    # Random weights have errors in each of the four images; two panels each, and seven charts.
    captions = re.findall(r"val/(\d)\.png: \d+ missed, \d+ false, F1 0\.\d\d", page.text)
    assert sorted(captions) == list("0123")
    assert page.tags.count("img") == 2 * 4 + 7
    assert len(page.loads) == 2 * 4 + 7 + 1  # and the icon


def test_a_baseline_has_its_table(checkpoint, squares, tmp_path, capsys):
    command = words(checkpoint, squares / "data.yaml", tmp_path, "plots=false")
    assert run([*command, "json"]) == 0
    (tmp_path / "metrics.json").write_text(capsys.readouterr().out)
    assert run([*command, "report", f"baseline={tmp_path / 'metrics.json'}"]) == 0
    assert "Difference from the baseline" in Page(tmp_path / "val" / "report.html").text


@pytest.mark.parametrize(
    ("green", "red"),
    [
        ("<script>alert(1)</script>", "\"><img src='http://example.org/x.png'>"),
        ("שלום\u202eabc", "$body ${policy} <!--"),
    ],
    ids=["markup", "right to left"],
)
def test_hostile_names_are_text(green, red, checkpoint, squares, tmp_path):
    root = tmp_path / "a'b\" onerror=x <i>"
    shutil.copytree(squares, root)
    for path in [*root.glob("*/val/*")]:
        path.rename(path.with_name(f"<img src=x>\u202e&amp;{path.name}"))
    content = {"train": "images/train", "val": "images/val", "names": [green, red]}
    (root / "data.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    assert run(words(checkpoint, root / "data.yaml", tmp_path, "report", "plots=false")) == 0
    page = Page(tmp_path / "val" / "report.html")
    assert all(one.startswith("data:") for one in page.loads)
    assert set(page.tags) <= {
        *("html", "head", "meta", "link", "title", "style", "body", "h1", "h2", "p", "dl", "dt"),
        *("dd", "div", "table", "thead", "tbody", "tr", "th", "td", "figure", "img", "figcaption"),
        *("span", "ul", "li", "svg", "rect", "footer"),
    }
    assert page.tags.count("img") == 2 * 4 + 7
    assert "<img src=x>\\u202e&amp;0.png: " in page.text
    assert green.replace("\u202e", "\\u202e") in page.cells
    assert "\u202e" not in page.text


def test_only_a_difference_whose_interval_excludes_0_has_a_color():
    nan = math.nan
    intervals = [(-0.1, 0.1), (0.01, 0.2), (-0.3, -0.01), (nan, nan)]
    rows = difference_rows([Difference("AP", 0.5, 0.6, 0.1, *one) for one in intervals])
    assert [isinstance(row[3], Cell) for row in rows] == [False, True, True, False]
    assert rows[1] == ["AP", "50.0", "60.0", Cell("+10.0", "note"), "+1.0", "+20.0"]


def test_a_split_without_errors_says_so_and_shows_no_image(checkpoint, squares, tmp_path):
    """No boxes and no detections: conf=1 removes all of random weights."""
    root = tmp_path / "empty"
    shutil.copytree(squares, root)
    for path in root.glob("labels/val/*"):
        path.write_text("")
    command = words(checkpoint, root / "data.yaml", tmp_path, "report", "plots=false", "conf=1")
    assert run(command) == 0
    page = Page(tmp_path / "val" / "report.html")
    assert "0 of 4 images have an error" in page.text
    assert "no ground-truth box in 4 images" in page.text
    assert page.tags.count("img") == 7
