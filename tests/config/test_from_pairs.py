"""Keys, a settings file and a recipe become the settings of a mode."""

from pathlib import Path
from typing import Any

import pytest

from rtdetr_cli.cli.arguments import parse_arguments
from rtdetr_cli.config.foreign_values import note
from rtdetr_cli.config.from_pairs import is_switch, require_key, settings_from_pairs
from rtdetr_cli.config.settings.modes import MODES
from rtdetr_cli.core.errors import UsageError


@pytest.fixture(autouse=True)
def _notes_are_printed_again():
    note.cache_clear()


def settings(mode: str, /, **pairs: object) -> Any:
    return settings_from_pairs(MODES[mode], pairs)


def test_keys_of_ours_and_of_ultralytics_are_known():
    require_key(MODES["train"], "lr")
    require_key(MODES["train"], "lr0")
    require_key(MODES["train"], "cfg")
    with pytest.raises(UsageError, match=r"my\.yaml: qqq is not a key of train$"):
        require_key(MODES["train"], "qqq", "my.yaml: ")
    with pytest.raises(UsageError, match="save_txt is not a key of info; it is one of predict"):
        require_key(MODES["info"], "save_txt")


def test_switches():
    predict = MODES["predict"]
    assert is_switch(predict, "save")
    assert is_switch(predict, "agnostic_nms")
    assert not is_switch(predict, "conf")
    assert not is_switch(predict, "iou")


def test_cfg_must_be_a_path():
    assert settings("val", data="x", cfg="") == settings("val", data="x", cfg=None)
    with pytest.raises(UsageError, match="cfg must be the path of a YAML file, found True"):
        settings("val", data="x", cfg=True)


def test_translated_keys_count_as_given():
    """A resumed run compares the keys that the user set."""
    assert settings("train", data="x", lr0=0.1, iou=0.7, epochs=None, fliplr=0.0).given == {
        "data",
        "lr",
        "flip",
    }


def test_bare_switches_of_theirs_need_no_value():
    cls = MODES["predict"]
    words = ["source=x", "--hide-labels", "agnostic_nms", "--augment", "false"]
    pairs = parse_arguments(cls, words)
    assert settings_from_pairs(cls, pairs).show_labels is False
    with pytest.raises(UsageError, match="iou needs a value"):
        parse_arguments(cls, ["iou"])


ARGS = """\
task: detect
mode: train
model: rtdetr-l.pt
data: coco8.yaml
epochs: 30
patience: 100
batch: 4
lr0: 0.0002
mosaic: 0.0
cos_lr: true
vid_stride: 2
iou: 0.7
hsv_h: 0.015
device: null
optimizer: auto
tracker: tracktrack.yaml
save_dir: /home/me/runs/detect/train
"""


def test_cfg_takes_their_args_yaml(tmp_path: Path, capsys):
    file = tmp_path / "args.yaml"
    file.write_text(ARGS)
    built = settings("train", data="x", cfg=file, batch=8)
    assert (built.model, built.data, built.epochs, built.batch) == ("rtdetr-l.pt", "x", 30, 8)
    assert (built.lr, built.schedule, built.optimizer) == (2e-4, "cosine", "adamw")
    assert capsys.readouterr().err.splitlines() == [
        f"{file}: keys with Ultralytics' default values are left out (6); "
        "rtdetr's own defaults apply",
        f"{file}: not used in train: vid_stride",
    ]


def test_a_refused_key_in_their_file_names_the_file(tmp_path: Path):
    file = tmp_path / "args.yaml"
    file.write_text(f"{ARGS}degrees: 10\n")
    with pytest.raises(UsageError, match=r"args\.yaml: train: degrees=10 is not supported"):
        settings("train", data="x", cfg=file)


def test_their_keys_work_in_a_file_of_ours(tmp_path: Path):
    """It has none of the keys that mark a file of theirs, so that epochs: 100 is meant."""
    file = tmp_path / "my.yaml"
    file.write_text("epochs: 100\nfliplr: 0.25\npatience: 100\n")
    built = settings("train", data="x", cfg=file)
    assert (built.epochs, built.flip, built.patience) == (100, 0.25, 100)
