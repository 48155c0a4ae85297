"""The benchmark: contestants in processes of their own, formats that cannot run, numbers kept."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from rtdetr_cli.cli.main import run
from rtdetr_cli.config.deployment import BenchmarkSettings
from rtdetr_cli.core.errors import BackendError, UsageError
from rtdetr_cli.engine import benchmark as module
from rtdetr_cli.engine.benchmark import Contestant, Row, chosen_formats
from rtdetr_cli.engine.contestant import serve


def test_formats_are_torch_and_what_is_asked_for():
    assert chosen_formats("engine, torch,onnx,onnx") == ["torch", "engine", "onnx"]
    assert chosen_formats(None)[:2] == ["torch", "onnx"]
    with pytest.raises(UsageError, match=r"formats=onxx is none of torch, .*; did you mean onnx\?"):
        chosen_formats("onxx")


def test_images_without_data_have_no_effect():
    with pytest.raises(UsageError, match="images has no effect without data"):
        BenchmarkSettings(images=3)


def test_a_contestant_opens_a_file_and_answers_orders(tiny_yaml):
    first = {"model": str(tiny_yaml), "device": "cpu", "size_hw": [64, 64]}
    orders = [first, {"batch": 2, "calls": 3}, {"batch": 1, "calls": 1}]
    answers = io.StringIO()
    serve(io.StringIO("".join(json.dumps(order) + "\n" for order in orders)), answers)
    ready, *timed = map(json.loads, answers.getvalue().splitlines())
    assert ready["ready"].startswith("tiny, PyTorch")
    assert [len(one["times_ms"]) for one in timed] == [3, 1]
    assert all(time > 0 for one in timed for time in one["times_ms"])


def test_a_contestant_that_cannot_open_its_file_says_why(tmp_path):
    answers = io.StringIO()
    first = {"model": str(tmp_path / "x.pt"), "device": "cpu", "size_hw": [64, 64]}
    serve(io.StringIO(json.dumps(first) + "\n"), answers)
    assert "x.pt" in json.loads(answers.getvalue())["error"]


@pytest.mark.slow
def test_a_process_that_fails_is_one_sentence(tmp_path):
    with pytest.raises(BackendError, match=r"^onnx: .*x\.onnx"):
        Contestant(Row("onnx", path=str(tmp_path / "x.onnx")), "cpu", (64, 64))


@pytest.mark.slow
def test_the_command_measures_torch_and_lists_what_cannot_run(
    tiny_yaml, squares, tmp_path, monkeypatch, capsys
):
    def refuse(settings):
        raise BackendError(f"{settings.format} is not for this machine")

    monkeypatch.setattr(module, "export", refuse)
    monkeypatch.chdir(tmp_path)
    words = [f"model={tiny_yaml}", "formats=onnx", "imgsz=64", "runs=6", "batch=2", "device=cpu"]
    assert run(["benchmark", *words]) == 0
    heard = capsys.readouterr()
    assert "torch" in heard.out
    assert "onnx did not run: onnx is not for this machine" in heard.err
    report = json.loads((tmp_path / "runs" / "benchmark" / "benchmark.json").read_text())
    torch, onnx = report["rows"]
    assert 0 < torch["p50_ms"] <= torch["p90_ms"] <= torch["p99_ms"]
    assert torch["per_second"] > 0
    assert torch["megabytes"] == Path(torch["path"]).stat().st_size / 1e6
    assert (onnx["p50_ms"], onnx["reason"]) == (None, "onnx is not for this machine")
    with (tmp_path / "runs" / "benchmark" / "benchmark.csv").open() as file:
        assert [row["format"] for row in csv.DictReader(file)] == ["torch", "onnx"]
