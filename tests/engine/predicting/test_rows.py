"""Rows in files: what is written is read again, and damage is found."""

import json

import numpy as np
import pytest

from rtdetr_cli.core.errors import BackendError, DataError
from rtdetr_cli.core.results import Results
from rtdetr_cli.engine.predicting import rows as module
from rtdetr_cli.engine.predicting.rows import box_columns, read_summary, timeless_row, write_rows
from rtdetr_cli.media.item import SourceImage

BOX = [1, 2, 30, 20, 0.75, 1]


def row(path="a.jpg", boxes=(BOX,), **keys):
    image = np.zeros((40, 60, 3), np.uint8)
    found = Results(image, path, {1: "car"}, np.array(boxes, np.float32).reshape(-1, 6))
    found.frame, found.time_s = keys.get("frame"), keys.get("time_s")
    return timeless_row(SourceImage(path, image, **keys), found)


def error(path):
    bad = SourceImage(path, None, f"{path}: bad")
    return timeless_row(bad, bad)


def test_a_row_holds_no_times_that_differ_between_runs():
    box = {"x1": 1.0, "y1": 2.0, "x2": 30.0, "y2": 20.0}
    found = {"name": "car", "class": 1, "confidence": 0.75, "box": box}
    assert row() == {"path": "a.jpg", "width": 60, "height": 40, "detections": [found]}


def test_json_lines_hold_each_row_in_a_line(tmp_path):
    written = [row(), error("b.jpg"), row("a\nb é \udc80.jpg", ())]
    write_rows(tmp_path / "part.jsonl", written, "jsonl")
    lines = (tmp_path / "part.jsonl").read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == written
    found = read_summary(tmp_path / "part.jsonl")
    assert found == (["a.jpg", "b.jpg", "a\nb é \udc80.jpg"], 3, 1)


def test_frames_of_one_video_count_as_one_source(tmp_path):
    frames = [row("a.mp4", frame=number, time_s=number / 25) for number in (1, 2, 3)]
    write_rows(tmp_path / "part.jsonl", [*frames, row("b.jpg")], "jsonl")
    assert read_summary(tmp_path / "part.jsonl") == (["a.mp4", "b.jpg"], 4, 0)


@pytest.mark.parametrize(
    "content", [b'{"path":"a', b'{"path":"a.jpg"}', b"[1]\n", b"\0\0\n", b"{}\n", b"\xff\n"]
)
def test_damaged_lines_are_found(tmp_path, content):
    (tmp_path / "part.jsonl").write_bytes(b'{"path":"0.jpg"}\n' + content)
    with pytest.raises(DataError, match=r"part\.jsonl is damaged"):
        read_summary(tmp_path / "part.jsonl")


def test_columns_are_lists_whose_entries_belong_together():
    columns = box_columns(row(boxes=(BOX, [5, 6, 7, 8, 0.5, 1])))
    assert columns["confidence"] == [0.75, 0.5]
    assert [columns[key][1] for key in ("x1", "y1", "x2", "y2")] == [5, 6, 7, 8]
    assert columns["name"] == ["car", "car"]
    assert set(box_columns(error("b.jpg"))) == set(Results.columns)


def test_parquet_needs_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(BackendError, match=r"pip install 'rtdetr-cli\[parquet\]'"):
        write_rows(tmp_path / "part.parquet", [row()], "parquet")
    assert not any(tmp_path.iterdir())


def test_parquet_holds_the_same_values_with_types_and_nulls(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "part.parquet"
    write_rows(file, [row(), error("b.jpg"), row("a.mp4", (), frame=2, time_s=0.04)], "parquet")
    first, second, third = parquet.read_table(file).to_pylist()
    assert (first["path"], first["width"], first["height"]) == ("a.jpg", 60, 40)
    assert (first["name"], first["class"], first["confidence"]) == (["car"], [1], [0.75])
    assert [first[key] for key in ("x1", "y1", "x2", "y2")] == [[1.0], [2.0], [30.0], [20.0]]
    assert (second["error"], second["width"], second["x1"]) == ("b.jpg: bad", None, [])
    assert (third["frame"], third["time_s"], third["name"]) == (2, 0.04, [])
    assert read_summary(file) == (["a.jpg", "b.jpg", "a.mp4"], 3, 1)


@pytest.mark.parametrize("place", [0, 100, -20])
def test_damaged_parquet_is_found(tmp_path, place):
    pytest.importorskip("pyarrow")
    file = tmp_path / "part.parquet"
    write_rows(file, [row(f"{number}.jpg") for number in range(50)], "parquet")
    content = bytearray(file.read_bytes())
    content[place : place + 16 or None] = b"\x55" * 16
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"part\.parquet is damaged"):
        read_summary(file)


def test_types_do_not_depend_on_the_values():
    pytest.importorskip("pyarrow")
    empty = {key: [[]] for key in Results.columns}
    full = box_columns(row())
    types = module.arrow_table(empty).schema
    assert types == module.arrow_table({key: [value] for key, value in full.items()}).schema
    assert str(types.field("name").type).startswith("list<")
