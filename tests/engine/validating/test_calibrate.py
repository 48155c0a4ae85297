"""`rtdetr val calibrate=true`, from the command to the exported file."""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rtdetr_cli.api import RTDETR
from rtdetr_cli.cli.main import run
from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.config.settings.val import ValSettings
from rtdetr_cli.core.errors import DataError, StorageError, UsageError, WeightsError
from rtdetr_cli.engine.exporting.request import open_weights_to_export
from rtdetr_cli.engine.validating.calibrate import calibrate, find_target
from rtdetr_cli.evaluation.calibration import Reliability
from rtdetr_cli.weights.calibration import Calibration
from rtdetr_cli.weights.checkpoint import load_checkpoint, save_checkpoint
from tests.engine.test_train import command

QUIET = ("plots=false", "workers=0", "device=cpu")


@pytest.fixture
def spread(checkpoint):
    """The random weights, with scores all over 0 to 1 instead of near 0.01."""
    found = load_checkpoint(checkpoint)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in found.weights.items():
        if "score_head" in name:
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    found.preprocessing = type(found.preprocessing)((64, 64))
    save_checkpoint(checkpoint, found)
    return checkpoint


@pytest.fixture
def labelled(spread, squares, tmp_path):
    """The images, labelled with every third detection of these weights, so that a third hits."""
    root = shutil.copytree(squares, tmp_path / "labelled")
    for split in ("train", "val"):
        for one in RTDETR(spread, "cpu").predict(root / "images" / split, conf=0, max_det=20):
            boxes = one.boxes[::3]
            rows = zip(boxes.cls.int().tolist(), boxes.xywhn.clamp(0.06, 0.94), strict=True)
            lines = [" ".join(map(str, (label, *row.tolist()))) for label, row in rows]
            label_file = root / "labels" / split / f"{Path(one.path).stem}.txt"
            label_file.write_text("\n".join(lines))
    return root


def val(model, data, *more: str) -> int:
    return run(["val", f"model={model}", f"data={data}/data.yaml", *QUIET, *more])


@pytest.fixture
def calibrated(spread):
    """The weights with a calibration under which some detections of the squares are kept."""
    given = Calibration(0.8, -1.0, (0.9, 0.5), "a/data.yaml", "val", 87, 1137)
    save_checkpoint(spread, replace(load_checkpoint(spread), calibration=given))
    return spread


def equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and one == other


def test_only_the_calibration_of_the_file_changes(spread, labelled, capsys):
    before = torch.load(spread, weights_only=True)
    assert val(spread, labelled, "calibrate") == 0
    after = torch.load(spread, weights_only=True)
    stored = after.pop("calibration")
    assert before.pop("calibration") is None
    assert equal(before, after)
    assert (stored["data"], stored["split"]) == ("labelled/data.yaml", "val")
    assert (stored["images"], stored["boxes"]) == (4, 28)  # 7 of 20 queries
    printed = capsys.readouterr()
    assert f"written into {spread}: temperature {stored['temperature']:.3f}" in printed.out
    assert "the calibration is uncertain" in printed.err
    assert not list(spread.parent.glob(".*"))


def test_json_has_the_error_and_what_was_stored(spread, labelled, capsys):
    assert val(spread, labelled, "calibrate", "json") == 0
    printed = json.loads(capsys.readouterr().out)["calibration"]
    stored = torch.load(spread, weights_only=True)["calibration"]
    assert {key: printed[key] for key in stored} == stored
    assert printed["file"] == str(spread)
    assert 0 < printed["ece"] < 1
    assert sum(one["detections"] for one in printed["bins"]) > 10


def test_a_training_checkpoint_keeps_its_state_and_resumes(tiny_yaml, squares, tmp_path):
    """The calibration does not outlive the weights it is for."""
    words = command(tiny_yaml, squares, tmp_path / "runs")
    assert run(words) == 0
    last = tmp_path / "runs" / "train" / "weights" / "last.pt"
    before = torch.load(last, weights_only=True)
    target = find_target(str(last))
    given = Reliability(np.array([0.2, 0.9, 0.4]), np.array([False, True, True]), np.arange(3))
    metrics = RTDETR(last, "cpu").val(data=str(squares / "data.yaml"), plots=False, workers=0)
    metrics.calibration = given
    calibrate(target, ValSettings(model=str(last), data="a/data.yaml"), metrics)
    after = torch.load(last, weights_only=True)
    assert after.pop("calibration")["thresholds"]
    before.pop("calibration")
    assert equal(before, after)
    assert "optimizer" in after["training"]
    more = ["train", "resume=true", f"model={last}", "epochs=2", "device=cpu", "workers=0"]
    assert run([*more, f"project={tmp_path}/runs"]) == 0
    found = {path: load_checkpoint(path) for path in (tmp_path / "runs").rglob("*.pt")}
    assert {path.parts[-3] for path in found} == {"train", "train2"}  # continued as a new run
    assert [path for path, one in found.items() if one.calibration] == [last]


def test_training_from_calibrated_weights_does_not_keep_the_calibration(
    calibrated, squares, tmp_path
):
    assert run(command(calibrated, squares, tmp_path / "runs")) == 0
    written = list((tmp_path / "runs" / "train" / "weights").glob("*.pt"))
    assert written
    assert all(load_checkpoint(path).calibration is None for path in written)
    assert load_checkpoint(calibrated).calibration is not None


def test_conversion_keeps_it_where_the_format_can(calibrated, tmp_path, capsys):
    expected = load_checkpoint(calibrated).calibration
    for format, end in (("rtdetr", ".pt"), ("safetensors", ".safetensors")):
        out = tmp_path / f"again{end}"
        assert run(["convert", f"model={calibrated}", f"format={format}", f"out={out}"]) == 0
        assert f"{expected.temperature:.3f}" in _info(out, capsys)
    assert run(["convert", f"model={calibrated}", "format=official", f"out={tmp_path}/o.pth"]) == 0
    assert "the calibration is left out" in capsys.readouterr().err


def _info(path, capsys) -> str:
    capsys.readouterr()
    assert run(["info", f"model={path}"]) == 0
    return capsys.readouterr().out


def test_info_shows_it(calibrated, capsys):
    stored = load_checkpoint(calibrated).calibration
    text = _info(calibrated, capsys)
    assert f"calibration        {stored.describe()}" in text
    assert f"conf=auto          green {stored.thresholds[0]:.3f}, red" in text


def predicted(model, squares, capsys, *more: str) -> list[dict]:
    capsys.readouterr()
    words = [f"model={model}", f"source={squares}/images/val", "json", "save=false", *more]
    assert run(["predict", *words, "device=cpu"]) == 0
    images = json.loads(capsys.readouterr().out)
    return [found for one in images for found in one["detections"]]


def test_auto_keeps_what_is_above_the_thresholds_with_calibrated_scores(
    calibrated, squares, capsys
):
    stored = load_checkpoint(calibrated).calibration
    everything = predicted(calibrated, squares, capsys, "conf=0")
    auto = predicted(calibrated, squares, capsys, "conf=auto")
    expected = [one for one in everything if one["confidence"] > stored.thresholds[one["class"]]]
    assert 0 < len(auto) < len(everything)
    assert [one["box"] for one in auto] == [one["box"] for one in expected]
    for one, raw in zip(auto, expected, strict=True):
        odds = math.log(raw["confidence"] / (1 - raw["confidence"]))
        chance = 1 / (1 + math.exp(-(odds / stored.temperature + stored.offset)))
        assert one["confidence"] == pytest.approx(chance, abs=1e-3)


def test_python_calibrates_and_predicts_in_one_object(spread, labelled):
    model = RTDETR(spread, "cpu")
    image = str(labelled / "images" / "val" / "0.png")
    with pytest.raises(UsageError, match="has no calibration"):
        model.predict(image, conf="auto")
    metrics = model.val(data=str(labelled / "data.yaml"), calibrate=True, plots=False, workers=0)
    assert 0 < metrics.calibration.ece < 1
    (auto,) = model.predict(image, conf="auto")
    (again,) = model.to("cpu").predict(image, conf="auto", decoder_layers=3)
    (other,) = RTDETR(spread, "cpu").predict(image, conf="auto")
    assert len(auto.boxes)
    for one in (again, other):
        torch.testing.assert_close(one.boxes.data, auto.boxes.data)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_exports_carry_it_and_predict_the_same(format, calibrated, squares, tmp_path, capsys):
    pytest.importorskip("onnxruntime" if format == "onnx" else "openvino")
    end = {"onnx": ".onnx", "openvino": "_openvino_model"}[format]
    out = tmp_path / f"tiny{end}"
    words = [f"model={calibrated}", f"format={format}", f"output={out}", "verify=false"]
    assert run(["export", *words]) == 0
    assert load_checkpoint(calibrated).calibration.describe() in _info(out, capsys)
    expected = predicted(calibrated, squares, capsys, "conf=auto")
    found = predicted(out, squares, capsys, "conf=auto")
    assert expected
    assert [one["class"] for one in found] == [one["class"] for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["confidence"] == pytest.approx(other["confidence"], abs=2e-3)
        assert list(one["box"].values()) == pytest.approx(list(other["box"].values()), abs=0.1)


def test_an_export_with_other_layers_leaves_it_out(calibrated, capsys):
    settings = ExportSettings(model=str(calibrated))
    same, _ = open_weights_to_export(settings)
    assert same.calibration == load_checkpoint(calibrated).calibration
    other, _ = open_weights_to_export(replace(settings, decoder_layers=2, imgsz=96))
    assert other.calibration is None
    assert "is for other settings than imgsz, decoder_layers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"model": "best.onnx"}, "best.onnx is exported; calibrate the weights"),
        ({"model": "rtdetr-n.yaml"}, "rtdetr-n.yaml is an architecture"),
        ({"conf": 0.25}, "leave conf at 0"),
        ({"half": True}, "leave half at its default"),
        ({"imgsz": 320}, "leave imgsz at its default"),
        ({"decoder_layers": 2}, "leave decoder_layers at its default"),
        ({"num_queries": 20}, "leave num_queries at its default"),
        ({"backend": "onnx"}, "leave backend at its default"),
        ({"max_det": 10}, "leave max_det at its default"),
    ],
)
def test_keys_that_would_measure_something_else_are_refused(more, complaint):
    with pytest.raises(UsageError, match=complaint):
        ValSettings(**{"model": "best.pt", "calibrate": True, **more})


def test_weights_of_another_format_are_refused_before_the_validation(spread, tmp_path, capsys):
    foreign = tmp_path / "foreign.pth"
    torch.save({"model": load_checkpoint(spread).weights}, foreign)
    with pytest.raises(UsageError, match=r"convert model=.*foreign.pth out=foreign-rtdetr.pt"):
        find_target(str(foreign))
    safe = tmp_path / "a.safetensors"
    assert run(["convert", f"model={spread}", "format=safetensors", f"out={safe}"]) == 0
    with pytest.raises(UsageError, match="convert it first"):
        find_target(str(safe))
    with pytest.raises(WeightsError, match="does not exist"):
        find_target(str(tmp_path / "absent.pt"))
    spread.write_bytes(spread.read_bytes()[:5000])
    with pytest.raises(WeightsError, match=r"tiny\.pt"):  # damaged, not another format
        find_target(str(spread))


def test_merged_classes_cannot_be_calibrated(spread, squares, capsys):
    before = spread.read_bytes()
    assert val(spread, squares, "calibrate", "single_cls") == 2
    assert "needs the 2 classes of the model" in capsys.readouterr().err
    assert spread.read_bytes() == before


def test_a_file_that_changes_during_the_validation_is_not_overwritten(spread, labelled):
    """As by a training that saves last.pt."""
    target = find_target(str(spread))
    metrics = RTDETR(spread, "cpu").val(data=str(labelled / "data.yaml"), plots=False, workers=0)
    os.utime(spread, (1, 1))
    before = spread.read_bytes()
    with pytest.raises(WeightsError, match="has changed during the validation"):
        calibrate(target, ValSettings(model=str(spread), data="a"), metrics)
    assert spread.read_bytes() == before


def test_without_a_hit_nothing_is_written(checkpoint, squares):
    """Random boxes match no square."""
    before = checkpoint.read_bytes()
    target = find_target(str(checkpoint))
    data = str(squares / "data.yaml")
    metrics = RTDETR(checkpoint, "cpu").val(data=data, plots=False, workers=0, imgsz=64)
    with pytest.raises(DataError, match="no detection matches"):
        calibrate(target, ValSettings(model=str(checkpoint), data=data), metrics)
    assert checkpoint.read_bytes() == before


def test_a_read_only_file_is_refused_before_the_validation(spread):
    spread.chmod(0o444)
    with pytest.raises(StorageError, match="the file is read-only; calibrate a copy"):
        find_target(str(spread))


def test_a_link_stays_a_link(spread, labelled, tmp_path):
    link = tmp_path / "link.pt"
    link.symlink_to(spread)
    assert val(link, labelled, "calibrate") == 0
    assert link.is_symlink()
    assert load_checkpoint(spread).calibration is not None


def test_the_train_split_is_warned_about(spread, labelled, capsys):
    assert val(spread, labelled, "calibrate", "split=train") == 0
    assert "scores and thresholds are misleading" in capsys.readouterr().err
