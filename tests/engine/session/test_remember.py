"""A call that names no data set continues with that of the weights, or asks for it."""

from __future__ import annotations

import shutil

import pytest

from rtdetr_cli.cli.main import run
from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.config.settings.val import ValSettings
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.data.splits import VAL_IMAGES
from rtdetr_cli.engine.session import remember
from rtdetr_cli.engine.session.remember import with_remembered
from rtdetr_cli.weights.checkpoint import load_checkpoint
from tests.engine.test_train import command


@pytest.fixture
def trained(tiny_yaml, squares, tmp_path):
    """The best.pt of an epoch at 64 pixels with batch 4, and its data set in a place of its own."""
    data = shutil.copytree(squares, tmp_path / "data")
    assert run(command(tiny_yaml, data, tmp_path / "runs")) == 0
    return tmp_path / "runs" / "train" / "weights" / "best.pt", data / "data.yaml"


def test_val_and_train_take_data_size_and_batch_from_the_weights(trained, tmp_path, capsys):
    weights, data = trained
    capsys.readouterr()
    assert run(["val", f"model={weights}", "plots=false", "workers=0", "device=cpu"]) == 0
    printed = capsys.readouterr()
    assert f"data={data} batch=4 (from best.pt)\n" in printed.err
    assert "AP50" in printed.out
    words = ["epochs=1", "workers=0", "device=cpu", "plots=false", f"project={tmp_path}/again"]
    assert run(["train", f"model={weights}", *words]) == 0
    assert f"data={data} imgsz=64 batch=4 (from best.pt)\n" in capsys.readouterr().err
    again = load_checkpoint(tmp_path / "again" / "train" / "weights" / "best.pt")
    assert again.trained_on.imgsz == (64, 64)


def test_given_keys_win_and_a_named_data_set_takes_nothing(trained):
    weights, data = str(trained[0]), str(trained[1])
    given = {"model": weights, "batch": "16", "imgsz": "96"}  # 16 is also the default of batch
    found = with_remembered(settings_from_pairs(TrainSettings, given))
    assert (found.data, found.batch, found.imgsz) == (data, 16, 96)
    named = ValSettings(model=weights, data="other.yaml")
    assert with_remembered(named) is named
    resumed = TrainSettings(model=weights, resume=True)
    assert with_remembered(resumed) is resumed


def test_a_data_set_that_is_gone_or_unknown_is_asked_for(trained, tiny_yaml):
    weights, data = trained
    data.unlink()
    with pytest.raises(UsageError, match=rf"was trained on data={data}, .*; give data="):
        with_remembered(ValSettings(model=str(weights)))
    for model in (str(tiny_yaml), "x.onnx"):
        sentence = f"val needs data=, for example data=coco8.yaml; {model} does not say"
        with pytest.raises(UsageError, match=sentence):
            with_remembered(ValSettings(model=model))


def test_published_weights_are_validated_on_coco_and_not_trained_on_it(monkeypatch, capsys):
    monkeypatch.setattr(remember, "resolve_weights", lambda name: pytest.fail("opened"))
    assert with_remembered(ValSettings(model="rtdetr-l.pt")).data == "coco.yaml"
    assert "data=coco.yaml (from rtdetr-l.pt)\n" in capsys.readouterr().err
    for settings in (
        TrainSettings(model="rtdetr-l.pt"),
        ValSettings(model="rtdetr-r50-o365-only.pt"),
    ):
        sentence = f"{settings.mode} needs data=, for example data=coco8.yaml; "
        with pytest.raises(UsageError, match=sentence):
            with_remembered(settings)


def test_a_name_that_a_file_may_not_hold_is_not_recorded(tiny_yaml, squares, tmp_path):
    data = shutil.copytree(squares, tmp_path / "data\x1b")
    assert run(command(tiny_yaml, data, tmp_path / "runs")) == 0
    best = tmp_path / "runs" / "train" / "weights" / "best.pt"
    assert load_checkpoint(best).trained_on is None


def test_val_says_that_a_data_set_has_images_that_were_trained_on(trained, capsys):
    weights, data = trained
    held_out = weights.parent.parent / VAL_IMAGES
    capsys.readouterr()
    with_remembered(ValSettings(model=str(weights)))
    assert "val_fraction" not in capsys.readouterr().err
    held_out.touch()
    with_remembered(ValSettings(model=str(weights)))
    assert f"{held_out} lists; all others of data={data} were trained on" in capsys.readouterr().err
    with_remembered(ValSettings(model=str(weights), split="train"))
    with_remembered(TrainSettings(model=str(weights)))
    assert "val_fraction" not in capsys.readouterr().err
