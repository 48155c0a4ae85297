"""The benchmark: worker processes, formats that cannot run, and the numbers on disk."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from pathlib import Path

import pytest
import torch

from rtdetr_cli.cli.main import run
from rtdetr_cli.config.settings.benchmark import BenchmarkSettings
from rtdetr_cli.core.errors import BackendError, UsageError
from rtdetr_cli.engine.benchmarking import rows
from rtdetr_cli.engine.benchmarking import worker as worker_module
from rtdetr_cli.engine.benchmarking.rows import Row, chosen_formats
from rtdetr_cli.engine.benchmarking.timing import Worker
from rtdetr_cli.engine.benchmarking.worker import serve
from rtdetr_cli.engine.env import torch_advisory
from rtdetr_cli.engine.exporting.report import report_file


def test_formats_are_torch_and_the_requested_ones():
    assert chosen_formats("engine, torch,onnx,onnx") == ["torch", "engine", "onnx"]
    assert {"torch-half", "onnx", "onnx-int8", "engine-half", "openvino-int8-half"} < set(
        chosen_formats(None)
    )
    with pytest.raises(UsageError, match=r"formats=onxx is none of torch, .*; did you mean onnx\?"):
        chosen_formats("onxx")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("onnx-int8", "8 bits are calibrated on real images: give data="),
        ("onnx-half", r'onnx is not installed; pip install "rtdetr-cli\[onnx\]"'),
        ("engine", "TensorRT is not installed"),
        ("torch-half", "this CPU has no instructions for bfloat16"),
    ],
)
def test_what_cannot_run_is_reported_before_tracing(name, sentence, tmp_path, monkeypatch, set_cpu):
    monkeypatch.setattr(rows, "export_file", lambda settings: pytest.fail("traced"))
    monkeypatch.setattr(rows, "find_spec", lambda package: None)
    set_cpu("avx2")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    row = rows.written(name, "x.pt", BenchmarkSettings(), tmp_path, torch.device("cpu"))
    assert re.search(sentence, row.reason)
    assert (row.format, row.p50_ms) == (name, None)


def test_a_format_is_written_with_its_precision(tmp_path, monkeypatch):
    exported = []

    def export(settings):
        exported.append(settings)
        Path(settings.output).touch()
        report_file(Path(settings.output)).write_text('{"precision": "fp16"}')
        return Path(settings.output)

    monkeypatch.setattr(rows, "export_file", export)
    settings = BenchmarkSettings(data="d.yaml", imgsz=64)
    for name in ("onnx", "onnx-half", "onnx-int8"):
        row = rows.written(name, "a/x.pt", settings, tmp_path, torch.device("cpu"))
        assert (row.format, row.precision, row.reason) == (name, "fp16", None)
    files = [Path(one.output).name for one in exported]
    assert files == ["x.onnx", "x_half.onnx", "x_int8.onnx"]
    kinds = [(one.half, one.int8, one.data) for one in exported]
    assert kinds == [(False, False, None), (True, False, None), (False, True, "d.yaml")]


def test_images_without_data_have_no_effect():
    with pytest.raises(UsageError, match="images has no effect without data"):
        BenchmarkSettings(images=3)


OPENED = {"device": "cpu", "half": False, "timeout": None, "size_hw": [64, 64]}


def test_a_worker_opens_a_file_and_serves_requests(tiny_yaml):
    first = {**OPENED, "model": str(tiny_yaml)}
    requests = [first, {"batch": 2, "calls": 3}, {"batch": 1, "calls": 1}]
    replies = io.StringIO()
    serve(io.StringIO("".join(json.dumps(one) + "\n" for one in requests)), replies)
    ready, *timed = map(json.loads, replies.getvalue().splitlines())
    assert ready["ready"].startswith("tiny, PyTorch")
    assert [len(one["times_ms"]) for one in timed] == [3, 1]
    assert all(time > 0 for one in timed for time in one["times_ms"])


def test_a_worker_changes_size_and_speed_on_request(tiny_yaml, monkeypatch):
    seen = []

    def time_calls(detector, images, calls):
        decoder = detector._runner.decoder
        seen.append((tuple(images.shape), decoder.eval_layers, decoder.num_queries))
        return [1.0] * calls

    monkeypatch.setattr(worker_module, "time_calls", time_calls)
    one = {"batch": 1, "calls": 1}
    requests = [{**OPENED, "model": str(tiny_yaml), "size_hw": None}]
    requests += [one | {"size_hw": [32, 64], "speed": [2, 7]}, one | {"size_hw": [64, 64]}]
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    serve(io.StringIO(lines), io.StringIO())
    assert seen == [((1, 3, 32, 64), 2, 7), ((1, 3, 64, 64), 2, 7)]


def test_a_worker_that_cannot_open_its_file_reports_why(tmp_path):
    replies = io.StringIO()
    first = {**OPENED, "model": str(tmp_path / "x.pt")}
    serve(io.StringIO(json.dumps(first) + "\n"), replies)
    assert "x.pt" in json.loads(replies.getvalue())["error"]


@pytest.mark.slow
def test_a_failed_worker_reports_one_sentence_and_idles(tmp_path):
    row = Row("onnx", path=str(tmp_path / "x.onnx"))
    worker = Worker(row, BenchmarkSettings(device="cpu"), (64, 64))
    worker.close()
    assert "x.onnx" in worker.row.reason
    assert worker.run(3) == []


@pytest.mark.slow
def test_the_command_measures_torch_and_lists_what_cannot_run(
    tiny_yaml, squares, tmp_path, monkeypatch, capsys
):
    def refuse(settings):
        raise BackendError(f"{settings.format} is not for this machine")

    monkeypatch.setattr(rows, "export_file", refuse)
    monkeypatch.chdir(tmp_path)
    words = [f"model={tiny_yaml}", "formats=onnx", "imgsz=64", "runs=6", "batch=2", "device=cpu"]
    assert run(["benchmark", *words]) == 0
    printed = capsys.readouterr()
    assert "torch" in printed.out
    assert "onnx did not run: onnx is not for this machine" in printed.err
    report = json.loads((tmp_path / "runs" / "benchmark" / "benchmark.json").read_text())
    plain, onnx = report["rows"]
    assert 0 < plain["p50_ms"] <= plain["p90_ms"] <= plain["p99_ms"]
    assert plain["per_second"] > 0
    assert plain["megabytes"] == Path(plain["path"]).stat().st_size / 1e6
    assert (onnx["p50_ms"], onnx["reason"]) == (None, "onnx is not for this machine")
    assert (tmp_path / "runs" / "benchmark" / "benchmark.png").stat().st_size > 10_000
    with (tmp_path / "runs" / "benchmark" / "benchmark.csv").open() as file:
        assert [row["format"] for row in csv.DictReader(file)] == ["torch", "onnx"]


@pytest.mark.parametrize(
    ("version", "is_affected"),
    [("2.4.0", True), ("2.9.1+cu128", True), ("2.10.0", False), ("2.14.1+cpu", False)],
)
def test_a_torch_with_a_known_vulnerability_is_reported(version, is_affected):
    assert ("CVE-2026-24747, fixed in 2.10" in torch_advisory(version)) == is_affected
