"""The tradeoff through the real command."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import pytest

from rtdetr_cli import RTDETR
from rtdetr_cli.cli.main import run
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.engine import tradeoff as module
from rtdetr_cli.engine.tradeoffs.rows import Setting


@pytest.fixture
def words(checkpoint, squares, tmp_path, monkeypatch) -> list[str]:
    """A small grid."""
    monkeypatch.chdir(tmp_path)
    return [
        *(f"model={checkpoint}", f"data={squares / 'data.yaml'}", "imgsz=64,96"),
        *("decoder_layers=1,3", "num_queries=5,20", "device=cpu", "half=false"),
        *("workers=0", "resamples=100", "runs=1"),
    ]


def fake_times(files, device, runs):
    """A latency that grows with everything, so that the choice is known."""
    assert (device, runs) == ("cpu", 1)
    return {
        one: [one.size_hw[0] / 10 + one.decoder_layers + one.num_queries / 100 + one.is_exported]
        for one in files
    }


@pytest.fixture
def timed(monkeypatch):
    monkeypatch.setattr(module, "time_settings", fake_times)


def test_the_command_measures_every_setting_and_its_line_runs(words, squares, capsys):
    """With real latencies, so the choice is not known."""
    assert run(["tradeoff", *words, "max_drop=100"]) == 0
    printed = capsys.readouterr()
    *_, chosen, line = printed.out.splitlines()
    assert chosen.startswith("chosen: imgsz=")
    assert "8 settings measured" in printed.err
    assert "4 images are too few for the intervals" in printed.err
    program, mode, *keys = shlex.split(line)
    assert (program, mode) == ("rtdetr", "predict")
    keys[-1] = f"source={squares / 'images' / 'val'}"
    assert run([mode, *keys, "device=cpu"]) == 0

    with Path("runs/tradeoff/tradeoff.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert [row["is_chosen"] for row in rows].count("True") == 1
    assert rows[0]["is_chosen"] == "True"  # any AP will do: the fastest
    assert float(rows[0]["p50_ms"]) == min(float(row["p50_ms"]) for row in rows) > 0
    own = next(row for row in rows if row["is_reference"] == "True")
    assert (own["imgsz"], own["decoder_layers"], own["num_queries"]) == ("96", "3", "20")
    assert {own[key] for key in ("difference", "low", "high")} == {"0.0"}
    assert Path("runs/tradeoff/tradeoff.png").stat().st_size > 10_000


@pytest.mark.slow
def test_json_has_all_rows_and_the_export_is_of_the_choice(words, timed, capsys):
    assert run(["tradeoff", *words, "max_drop=100", "json", "plots=false", "export"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert len(printed["rows"]) == 8
    assert printed["chosen"] == ["imgsz=64", "decoder_layers=1", "num_queries=5"]
    file = Path(printed["file"])
    assert file == Path("runs/tradeoff/tiny_64x64_1_layers_5_queries.onnx")
    assert not (file.parent / "tradeoff.png").exists()
    # what the file returns is the AP of the row
    row = printed["rows"][0]
    assert row["is_chosen"]
    data = next(word for word in words if word.startswith("data="))
    assert run(["val", f"model={file}", data, "workers=0", "plots=false", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["stats"]["AP"] == pytest.approx(row["ap"], abs=1e-3)


def test_limits_that_nothing_meets_end_with_code_1_after_the_table(words, timed, capsys):
    assert run(["tradeoff", *words, "max_ms=0.5", "plots=false"]) == 1
    printed = capsys.readouterr()
    assert "imgsz" in printed.out
    assert "chosen" not in printed.out
    assert "Error: no setting meets max_ms=0.5: the fastest takes 7.5 ms" in printed.err
    assert Path("runs/tradeoff/tradeoff.csv").is_file()


def test_other_runtimes_run_the_best_settings(words, timed, checkpoint, squares, monkeypatch):
    """Only the front is exported; what cannot be exported is left out."""
    exported = []

    def export(settings):
        exported.append(settings)
        if settings.format == "openvino":
            raise BackendError("OpenVINO is not installed")
        return checkpoint  # read as if it were the file: it runs with all layers and queries

    monkeypatch.setattr(module, "export_file", export)
    model = RTDETR(checkpoint, device="cpu")
    keys = dict(word.split("=") for word in words[1:])
    found = model.tradeoff(**keys, max_drop=100, backend=["onnx", "openvino"], plots=False)
    others = [row for row in found.rows if row.setting.is_exported]
    assert {row.setting.backend for row in others} == {"onnx"}
    torch_front = {(one.imgsz, one.decoder_layers, one.num_queries) for one in exported}
    assert len(exported) == 2 * len(others) == 2 * len(torch_front)
    assert {row.file for row in others} == {str(checkpoint)}
    assert found.chosen.setting == Setting((64, 64), 1, 5)
    assert found.best[0] is found.chosen


@pytest.mark.slow
def test_a_file_of_another_runtime_is_measured_and_its_line_runs(words, squares, capsys):
    keys = dict(word.split("=") for word in words) | {"num_queries": "20", "decoder_layers": "3"}
    keys |= {"imgsz": "64", "backend": "onnx"}
    pairs = [f"{key}={value}" for key, value in keys.items()]
    assert run(["tradeoff", *pairs, "plots=false", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    onnx, torch = sorted(rows, key=lambda row: row["backend"])
    assert (onnx["backend"], torch["backend"]) == ("onnx", "torch")
    assert onnx["file"] == "runs/tradeoff/tiny_64x64_3_layers_20_queries.onnx"
    assert onnx["ap"] == pytest.approx(torch["ap"], abs=1e-3)
    assert onnx["p50_ms"] > 0
    images = squares / "images" / "val"
    assert run(["predict", f"model={onnx['file']}", f"source={images}", "device=cpu"]) == 0


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["model=a.pt"], 2, "tradeoff needs data="),
        (["model=a.onnx", "data=coco8"], 2, "a.onnx is an exported file, in which decoder layers"),
        (["model=none.pt", "data=coco8"], 4, "none.pt"),
        (["model={checkpoint}", "data={data}", "decoder_layers=4"], 2, "1 to 3 are possible"),
        (["model={checkpoint}", "data={data}", "num_querys=4"], 2, "did you mean num_queries"),
        (["model={checkpoint}", "data={data}", "split=test"], 3, "test"),
        (["model={checkpoint}", "data={empty}"], 3, "has no boxes to compute AP on"),
    ],
    ids=str,
)
def test_wrong_calls_end_with_a_sentence(
    words, code, sentence, checkpoint, squares, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    empty = tmp_path / "empty"
    for folder in ("images", "labels"):
        (empty / folder / "val").mkdir(parents=True)
    image = (squares / "images" / "val" / "0.png").read_bytes()
    (empty / "images" / "val" / "0.png").write_bytes(image)
    (empty / "labels" / "val" / "0.txt").touch()
    text = (squares / "data.yaml").read_text().replace("images/train", "images/val")
    (empty / "data.yaml").write_text(text)
    places = {"checkpoint": checkpoint, "data": squares / "data.yaml", "empty": empty / "data.yaml"}
    assert run(["tradeoff", *(word.format(**places) for word in words)]) == code
    assert sentence in capsys.readouterr().err
    assert not Path("runs").exists()
