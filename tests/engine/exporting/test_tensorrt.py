"""Export to TensorRT through the real command, with a stand-in for the package and the GPU.

The model is an ONNX file made here; one test traces a network.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from rtdetr_cli import RTDETR
from rtdetr_cli.backends.onnx.half import halve_file
from rtdetr_cli.cli.main import run
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.core.errors import BackendError, UsageError
from rtdetr_cli.engine.exporting import tensorrt as export_engine
from rtdetr_cli.engine.exporting.report import Report
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint


@pytest.fixture
def toy(fake_tensorrt, tmp_path: Path) -> Path:
    return fake_tensorrt["save_toy"](tmp_path / "toy.onnx", verdict="passed")


def test_an_engine_is_built_compared_and_opened(tensorrt, toy, capsys, squares):
    tensorrt()
    assert run(["export", f"model={toy}", "format=engine", "batch=4"]) == 0
    engine = toy.with_suffix(".engine")
    captured = capsys.readouterr()
    first, second = captured.out.splitlines()
    assert first.startswith(f"{engine}: TensorRT 10.3.0, NVIDIA T4, 1 to 4 images, tuned for 4")
    assert second.startswith("passed: 100.00% of the raw detections on 8 images match")
    notes = json.loads(engine.with_name("toy.engine.json").read_text())
    assert (notes["verdict"], notes["precision"], notes["batch"]) == ("passed", "tf32", [1, 4, 4])
    assert notes["agreement"]["matched"] == 1.0

    found = RTDETR(engine)(torch.full((1, 3, 32, 64), 0.42))[0]
    assert (found.boxes.cls.tolist(), found.names[42]) == ([42], "42 %")
    folder = squares / "images" / "train"
    assert run(["predict", f"model={engine}", f"source={folder}", "save=false"]) == 0
    assert run(["predict", f"model={engine}", f"source={folder}", "imgsz=64"]) == 2
    assert "takes 32x64 only" in capsys.readouterr().err


@pytest.mark.parametrize("version", ["10.3.0", "10.16.1.11", "11.4.0.106"])
def test_a_16_bit_engine_is_judged_by_the_limits_of_fp16(
    tensorrt, fake_tensorrt, tmp_path, version
):
    tensorrt(version)
    path = fake_tensorrt["save_toy"](tmp_path / "toy_half.onnx", precision="fp16")
    halve_file(path)
    assert run(["export", f"model={path}", "format=engine"]) == 0
    notes = json.loads((tmp_path / "toy_half.engine.json").read_text())
    assert (notes["precision"], notes["verdict"]) == ("fp16", "passed")
    assert notes["agreement"]["limits"]["score"] == 0.02


def test_a_graph_that_tensorrt_misreads_is_not_built(tensorrt, fake_tensorrt, tmp_path, capsys):
    tensorrt()
    text = fake_tensorrt["TOY"].replace("Round(percent)", "Bernoulli(percent)")
    path = fake_tensorrt["save_toy"](tmp_path / "toy.onnx", text)
    assert run(["export", f"model={path}", "format=engine"]) == 5
    error = capsys.readouterr().err
    assert "TensorRT cannot read toy.onnx: Bernoulli is not supported by its parser" in error
    assert not (tmp_path / "toy.engine").exists()


def test_val_runs_an_engine(tensorrt, fake_tensorrt, tmp_path, squares, capsys):
    tensorrt()
    names = {"0": "a", "1": "b"}
    text = fake_tensorrt["TOY"].replace("float {100.0}", "float {0.0}")  # everything is class 0
    toy = fake_tensorrt["save_toy"](tmp_path / "toy.onnx", text, names=names)
    assert run(["export", f"model={toy}", "format=engine"]) == 0
    words = [f"model={toy.with_suffix('.engine')}", f"data={squares}/data.yaml", "plots=false"]
    assert run(["val", *words, "workers=0", f"project={tmp_path}", "json"]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown[shown.index("{") :])["stats"]["AP"] == 0.0


def test_json_is_one_object(tensorrt, toy, capsys):
    tensorrt("11.4.0.106")
    assert run(["export", f"model={toy}", "format=engine", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["path"].endswith("toy.engine")
    assert report["agreement"]["passes"] is True
    assert report["tensorrt"] == "11.4.0.106"


def test_an_engine_whose_outputs_differ_fails(tensorrt, toy, capsys):
    tensorrt().state.is_wrong = True
    older = toy.with_suffix(".engine")
    older.write_bytes(b"an older engine")
    assert run(["export", f"model={toy}", "format=engine"]) == 5
    error = capsys.readouterr().err
    assert "TensorRT 10.3.0: outputs differ from ONNX Runtime: 0.00% match" in error
    assert "kept as" in error
    assert "or tf32=false" in error
    notes = json.loads((toy.parent / "toy.failed.engine.json").read_text())
    assert notes["verdict"] == "failed"
    assert (toy.parent / "toy.failed.engine").is_file()
    assert older.read_bytes() == b"an older engine"


@pytest.fixture
def writes_toys(fake_tensorrt, monkeypatch):
    """Toy files instead of traced ones, which record the requested sampler."""
    written = []

    def write(settings):
        written.append(settings.sampler)
        path = fake_tensorrt["save_toy"](Path(settings.output), sampler=settings.sampler)
        return path, Report({"opset": 17, "nodes": 9}, None, None)

    monkeypatch.setattr(export_engine, "trace_and_compare", write)
    return written


@pytest.mark.parametrize(
    ("wrong", "words", "tried", "code"),
    [
        (False, [], ["gather"], 0),
        (b'"gather"', [], ["gather", "grid_sample"], 0),
        (b'"grid_sample"', [], ["gather"], 0),
        (True, [], ["gather", "grid_sample"], 5),
        (b'"grid_sample"', ["sampler=grid_sample"], ["grid_sample"], 5),
    ],
)
def test_the_other_sampler_is_tried(
    tensorrt, writes_toys, tmp_path, capsys, wrong, words, tried, code
):
    tensorrt().state.is_wrong = wrong
    engine = tmp_path / "x.engine"
    assert run(["export", "model=x.pt", "format=engine", f"output={engine}", *words]) == code
    captured = capsys.readouterr()
    assert writes_toys == tried
    assert ("retrying with sampler=grid_sample" in captured.err) == (len(tried) == 2)
    assert engine.is_file() == (code == 0)
    if code == 0:
        assert f"sampler={tried[-1]}" in captured.out
        assert json.loads((tmp_path / "x.engine.json").read_text())["sampler"] == tried[-1]
    else:
        assert "try another release of TensorRT or tf32=false" in captured.err


def test_whole_pixels_have_no_other_sampler(
    tensorrt, writes_toys, fake_tensorrt, tmp_path, monkeypatch
):
    tensorrt().state.is_wrong = True
    monkeypatch.setattr(export_engine, "_samples_whole_pixels", lambda source: True)
    assert run(["export", "model=x.pt", "format=engine", f"output={tmp_path}/x.engine"]) == 5
    assert writes_toys == ["gather"]


@pytest.mark.parametrize(
    ("notes", "found"),
    [
        ({"dynamic": True}, "dynamic=true"),
        ({"postprocess": False, "batch": 2}, "postprocess=false, batch=2"),
    ],
)
def test_files_that_engines_do_not_support_are_refused(
    tensorrt, fake_tensorrt, tmp_path, capsys, notes, found
):
    tensorrt()
    toy = fake_tensorrt["save_toy"](tmp_path / "toy.onnx", **notes)
    assert run(["export", f"model={toy}", "format=engine"]) == 2
    assert f"was exported with {found}, which engines do not support" in capsys.readouterr().err


def test_without_comparison_the_notes_record_it(tensorrt, toy, capsys):
    tensorrt().state.is_wrong = True
    assert run(["export", f"model={toy}", "format=engine", "verify=false"]) == 0
    assert "the engine was not compared with ONNX Runtime" in capsys.readouterr().err
    notes = json.loads((toy.parent / "toy.engine.json").read_text())
    assert notes["verdict"] == "not compared with ONNX Runtime"


def test_a_doubtful_onnx_file_is_reported(tensorrt, fake_tensorrt, tmp_path, capsys):
    tensorrt()
    toy = fake_tensorrt["save_toy"](tmp_path / "toy.onnx", verdict="not compared with PyTorch")
    assert run(["export", f"model={toy}", "format=engine"]) == 0
    assert "toy.onnx itself was not compared with PyTorch" in capsys.readouterr().err


def test_a_build_that_fails_leaves_nothing(tensorrt, toy, capsys):
    tensorrt().state.fail = "build"
    assert run(["export", f"model={toy}", "format=engine"]) == 5
    assert "could not find any implementation for node /TopK" in capsys.readouterr().err
    assert [path.name for path in toy.parent.iterdir()] == ["toy.onnx"]


def test_without_tensorrt_one_sentence_has_both_commands(toy, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    words = [f"model={toy}", "format=engine", "batch=1,2,4", "workspace=2"]
    assert run(["export", *words]) == 5
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert 'TensorRT is not installed; pip install "rtdetr-cli[tensorrt]"' in error
    assert f"rtdetr export model={toy} format=engine" in error
    assert (
        f"trtexec --onnx={toy} --saveEngine={toy.with_suffix('.engine')} --stronglyTyped" in error
    )
    assert "--maxShapes=images:4x3x32x64,orig_target_sizes:4x2" in error
    assert "--memPoolSize=workspace:2048" in error


@pytest.mark.slow
def test_without_tensorrt_the_onnx_file_is_kept(tiny_config, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    weights = RTDETRNetwork(tiny_config, 1).state_dict()
    path = tmp_path / "tiny.pt"
    save_checkpoint(
        path, Checkpoint(tiny_config, {0: "a"}, weights, Preprocessing((64, 64), False))
    )
    assert run(["export", f"model={path}", "format=engine"]) == 5
    captured = capsys.readouterr()
    assert f"rtdetr export model={tmp_path / 'tiny.onnx'} format=engine" in captured.err
    assert captured.out.startswith(f"{tmp_path / 'tiny.onnx'}: opset 17")
    assert RTDETR(tmp_path / "tiny.onnx").names == {0: "a"}


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"batch": (4, 2, 8)}, "batch=4,2,8 must be in ascending order: min,opt,max"),
        ({"device": "dla:0"}, "device=dla:0: DLA cannot run RT-DETR"),
        ({"model": "x.onnx", "imgsz": 320}, r"imgsz is fixed inside x\.onnx"),
        ({"model": "x.onnx", "opset": 18}, r"opset is fixed inside x\.onnx"),
        ({"dynamic": True}, "dynamic has no effect on an engine, which is built for one size"),
        ({"input": "uint8"}, "input=uint8 and postprocess=false need format=onnx"),
        ({"postprocess": False}, "input=uint8 and postprocess=false need format=onnx"),
        ({"model": "x.onnx", "sampler": "gather"}, r"sampler is fixed inside x\.onnx"),
        ({"format": "onnx", "batch": (1, 2, 4)}, "batch=min,opt,max has no effect with"),
        ({"format": "onnx", "workspace": 4}, "workspace has no effect with format=onnx"),
        ({"format": "onnx", "tf32": False}, "tf32 has no effect with format=onnx"),
        ({"format": "onnx", "version_compatible": True}, "version_compatible has no effect"),
        ({"format": "onnx", "hardware_compatible": True}, "hardware_compatible has no effect"),
        ({"model": "x.engine"}, r"model=x\.engine is an exported file; give the weights"),
        ({"workspace": 0}, "workspace must be at least 0.1"),
        ({"batch": 0}, "batch must be at least 1"),
    ],
)
def test_keys_without_effect_are_refused_with_the_reason(keys, sentence):
    with pytest.raises(UsageError, match=sentence):
        ExportSettings(**{"format": "engine", **keys})


@pytest.mark.parametrize(
    ("batch", "expected"), [(None, (1, 1, 8)), (8, (1, 8, 8)), ((2, 4, 16), (2, 4, 16))]
)
def test_the_batch_is_a_number_or_a_range(batch, expected):
    assert ExportSettings(format="engine", batch=batch).batch_range == expected


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("output=x.onnx", "output=x.onnx must end in .engine"),
        ("batch=2,1,4", "batch=2,1,4 must be in ascending order"),
        ("device=dla", "give a GPU (device=0)"),
    ],
)
def test_wrong_usage_is_one_sentence(toy, capsys, word, sentence):
    assert run(["export", f"model={toy}", "format=engine", word]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_a_third_party_onnx_file_is_refused(fake_tensorrt, tmp_path, capsys):
    other = fake_tensorrt["save_toy"](tmp_path / "other.onnx", rtdetr_format=None)
    content = other.read_bytes().replace(b"rtdetr_format", b"others_format")
    other.write_bytes(content)
    assert run(["export", f"model={other}", "format=engine"]) == 2
    assert "was not written by `rtdetr export`" in capsys.readouterr().err


def test_an_int8_engine_is_judged_by_the_limits_of_int8(tensorrt, fake_tensorrt, tmp_path, squares):
    tensorrt()
    pair = """scale = Constant<value = float {0.01}>() zero = Constant<value = int8 {0}>()
      low = QuantizeLinear(exact, scale, zero) mean = DequantizeLinear(low, scale, zero)
      scores"""
    text = (
        fake_tensorrt["TOY"]
        .replace("mean = Red", "exact = Red")
        .replace("scores =", f"{pair} =", 1)
    )
    toy = fake_tensorrt["save_toy"](tmp_path / "toy_int8.onnx", text, precision="int8")
    assert run(["export", f"model={toy}", "format=engine"]) == 0
    notes = json.loads((tmp_path / "toy_int8.engine.json").read_text())
    assert (notes["verdict"], notes["precision"]) == ("passed", "int8")
    assert notes["agreement"]["limits"]["matched"] == 0.9


def test_int8_keys_reach_the_onnx_file(tensorrt, squares, tmp_path, monkeypatch):
    tensorrt()
    requested = []

    def stop(settings):
        requested.append(settings)
        raise BackendError("stop")

    monkeypatch.setattr(export_engine, "trace_and_compare", stop)
    weights = tmp_path / "best.pt"
    weights.touch()
    words = [f"model={weights}", f"data={squares}/data.yaml", "int8", "int8_drop=1.5"]
    assert run(["export", *words, "format=engine"]) == 5
    (found,) = requested
    assert (found.int8, found.int8_drop, found.format) == (True, 1.5, "onnx")
    assert (found.data, found.output) == (f"{squares}/data.yaml", str(tmp_path / "best_int8.onnx"))
