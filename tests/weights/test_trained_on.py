"""The record of a training (data set, image size, batch), from files that anyone may write."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rtdetr_cli.weights.reader import read_trained_on
from rtdetr_cli.weights.safetensors_file import read_safetensors, write_safetensors
from rtdetr_cli.weights.trained_on import TrainedOn, trained_on

RECORD = TrainedOn("my.yaml", (64, 96), 4, True, (0, "cat"))


@pytest.fixture
def checkpoint(tiny_config):
    weights = RTDETRNetwork(tiny_config, 1).state_dict()
    return Checkpoint(tiny_config, {0: "object"}, weights, trained_on=RECORD)


def test_the_record_survives_a_checkpoint_and_is_read_without_its_tensors(checkpoint, tmp_path):
    path = tmp_path / "best.pt"
    save_checkpoint(path, checkpoint)
    assert load_checkpoint(path).trained_on == RECORD
    assert read_trained_on(path) == RECORD
    assert torch.load(path, weights_only=True)["trained_on"] == {
        "data": "my.yaml", "imgsz": [64, 96], "batch": 4, "single_cls": True, "classes": [0, "cat"],
    }  # fmt: skip
    save_checkpoint(path, replace(checkpoint, trained_on=None))
    assert load_checkpoint(path).trained_on is read_trained_on(path) is None


def test_files_from_before_the_record_open(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "new.pt", checkpoint)
    content = torch.load(tmp_path / "new.pt", weights_only=True)
    del content["trained_on"]
    torch.save(content, tmp_path / "old.pt")
    assert load_checkpoint(tmp_path / "old.pt").trained_on is None


def test_the_record_survives_safetensors(checkpoint, tmp_path, monkeypatch):
    written = {}
    monkeypatch.setattr(
        "rtdetr_cli.weights.safetensors_file.save",
        lambda tensors, metadata: written.update(metadata) or b"",
    )
    write_safetensors(tmp_path / "x.safetensors", checkpoint)
    found = read_safetensors(written["rtdetr_cli"], checkpoint.weights, "x.safetensors")
    assert found.trained_on == RECORD


def test_train_args_of_ultralytics_have_the_same_keys(tmp_path):
    args = {"data": "coco8.yaml", "imgsz": 330, "batch": 16, "single_cls": False, "classes": None}
    torch.save({"model": None, "train_args": {**args, "lr0": 0.01}}, tmp_path / "best.pt")
    # 330 is rounded up to a multiple of 32, as Ultralytics does
    assert read_trained_on(tmp_path / "best.pt") == TrainedOn("coco8.yaml", (352, 352), 16)
    (tmp_path / "x.safetensors").write_bytes(b"\0" * 16)
    assert read_trained_on(tmp_path / "x.safetensors") is None


@pytest.mark.parametrize(
    "change",
    [
        {"data": None}, {"data": ""}, {"data": "a\nb"}, {"data": "x" * 5000}, {"data": ["a"]},
        {"data": "https://example.org/x.yaml"}, {"imgsz": -1}, {"imgsz": [64, 64, 64]},
        {"imgsz": 10**9}, {"batch": 0}, {"batch": True}, {"batch": 0.7}, {"single_cls": 1},
        {"classes": []}, {"classes": ["\x1b[2J"]}, {"classes": [True]},
        {"classes": [-1]}, {"classes": "0,1"},
    ],
)  # fmt: skip
def test_values_that_no_training_has_are_rejected(change, checkpoint, tmp_path):
    values = {**RECORD.to_dict(), **change}
    with pytest.raises((TypeError, ValueError)):
        trained_on(values)
    save_checkpoint(tmp_path / "x.pt", checkpoint)
    content = torch.load(tmp_path / "x.pt", weights_only=True)
    torch.save({**content, "trained_on": values}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=r"x\.pt is damaged: a part is missing or invalid"):
        load_checkpoint(tmp_path / "x.pt")
    torch.save({"model": None, "train_args": values}, tmp_path / "theirs.pt")
    assert read_trained_on(tmp_path / "theirs.pt") is None  # their file opens, but says nothing
