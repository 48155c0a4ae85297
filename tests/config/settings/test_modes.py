"""Keys and values become settings, or one sentence says why not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.convert import ConvertSettings
from rtdetr_cli.config.settings.modes import MODES, ExportSettings, size_hw
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.config.settings.val import ValSettings
from rtdetr_cli.core.errors import ConfigError, UsageError


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("imgsz", "320", 320),
        ("imgsz", "320,640", (320, 640)),
        ("imgsz", "[320, 640]", (320, 640)),
        ("lr", "1e-4", 1e-4),
        ("lr", "3", 3.0),
        ("lr", "None", None),
        ("lr", "null", None),
        ("multi_scale", "false", False),
        ("multi_scale", "True", True),
        ("device", "0", "0"),
        ("device", "0,1", "0,1"),
        ("name", "'my run'", "my run"),
        ("name", "12", "12"),
        ("name", "none", "none"),
        ("data", r"C:\sets\a=b.yaml", r"C:\sets\a=b.yaml"),
        ("resume", "true", True),
        ("resume", "runs/last.pt", "runs/last.pt"),
        ("schedule", "cosine", "cosine"),
        ("cache", "off", "off"),
    ],
)
def test_texts_are_read_as_the_type_of_their_field(key: str, text: str, value: object) -> None:
    settings = settings_from_pairs(TrainSettings, {"data": "x", key: text})
    assert getattr(settings, key) == value
    assert type(getattr(settings, key)) is type(value)


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        ("imgsz", [320, 640], (320, 640)),
        ("lr", 1, 1.0),
        ("device", 0, "0"),
        ("device", [0, 1], "0,1"),
        ("data", Path("a.yaml"), "a.yaml"),
        ("resume", Path("last.pt"), "last.pt"),
        ("schedule", None, None),
        ("cache", False, "off"),  # what YAML makes of a bare off
        ("epochs", None, 72),
        ("epochs", "none", 72),
        ("name", None, "train"),
        ("epochs", np.int64(3), 3),
        ("lr", np.float32(0.5), 0.5),
        ("plots", np.bool_(False), False),
        ("imgsz", np.array([320, 640]), (320, 640)),
        ("device", np.array([0, 1]), "0,1"),
        ("classes", 7, (7,)),
        ("classes", np.int64(7), (7,)),
        ("classes", np.array([0, 2]), (0, 2)),
        ("classes", [np.int64(0), np.uint8(2)], (0, 2)),
        ("classes", range(3), (0, 1, 2)),
    ],
)
def test_python_values(key: str, value: object, kept: object) -> None:
    assert getattr(settings_from_pairs(TrainSettings, {"data": "x", key: value}), key) == kept


def test_a_recipe_is_a_file_of_settings_below_the_others() -> None:
    pairs = {"data": "x", "recipe": "deim", "mixup": "0.1", "dense_epochs": "2,30"}
    settings = settings_from_pairs(TrainSettings, pairs)
    assert (settings.mosaic, settings.mixup, settings.loss) == (0.5, 0.1, "mal")
    assert settings.dense_epochs == (2, 30)


@pytest.mark.parametrize("text", ["0,2,5", "[0,2,5]", "(0, 2, 5)"])
def test_lists(text: str) -> None:
    settings = settings_from_pairs(PredictSettings, {"source": "x", "classes": text})
    assert settings.classes == (0, 2, 5)
    assert settings_from_pairs(PredictSettings, {"source": "x", "classes": "7"}).classes == (7,)


@pytest.mark.parametrize(
    ("cls", "pairs", "sentence"),
    [
        (TrainSettings, {"model": "rtdetr-n.yaml"}, "train needs data="),
        (PredictSettings, {"source": None}, "predict needs source="),
        (ConvertSettings, {}, "convert: give model= "),
        (
            TrainSettings,
            {"data": "x", "epoch": 3},
            "epoch is not a key of train; did you mean",
        ),
        (ValSettings, {"data": "x", "lr": 3}, "lr is not a key of val; it is one of train"),
        (TrainSettings, {"data": "x", "imgsz": 0}, "imgsz must be at least 32, found 0"),
        (TrainSettings, {"data": "x", "imgsz": "a"}, "whole number or a list of 2 whole numbers"),
        (TrainSettings, {"data": "x", "imgsz": [32, 32, 32]}, "a list of 2 whole numbers, found ["),
        (TrainSettings, {"data": "x", "epochs": "0"}, "epochs must be at least 1, found 0"),
        (
            TrainSettings,
            {"data": "x", "epochs": "2.5"},
            "epochs must be a whole number, found '2.5'",
        ),
        (TrainSettings, {"data": "x", "epochs": True}, "epochs must be a whole number, found True"),
        (TrainSettings, {"data": "x", "flip": "1.5"}, "flip must be at most 1, found 1.5"),
        (TrainSettings, {"data": "x", "lr": "nan"}, "lr must be a finite number, found nan"),
        (TrainSettings, {"data": "x", "schedule": "cosin"}, "found 'cosin'; did you mean cosine?"),
        (TrainSettings, {"data": "x", "plots": "maybe"}, "plots must be true or false, found 'may"),
        (TrainSettings, {"data": "x", "pretrained": "a.pt"}, "pretrained=a.pt has no effect with"),
        (
            TrainSettings,
            {"data": "x", "cache": "rom"},
            "must be one of off, ram, disk, found 'rom'",
        ),
        (
            PredictSettings,
            {"source": "x", "model": "a.onnx", "half": True},
            "predict: half has no effect on a.onnx, which is already exported; give it to",
        ),
        (
            ValSettings,
            {"data": "x", "model": "a_openvino_model", "backend": "auto"},
            "val: backend=auto has no effect on a_openvino_model",
        ),
        (
            PredictSettings,
            {"source": "x", "model": "rtdetr-n.yaml", "backend": "auto"},
            "backend=auto needs weights; rtdetr-n.yaml is an architecture",
        ),
        (
            PredictSettings,
            {"source": "x", "backend": "auto", "half": True},
            "half has no effect with backend=auto",
        ),
        (
            ValSettings,
            {"data": "x", "backend": "onnx", "half": True},
            "half has no effect with backend=onnx",
        ),
        (
            TrainSettings,
            {"data": "x", "mixup": 0.5, "batch": 1},
            "mixup has no effect with batch=1",
        ),
        (
            TrainSettings,
            {"data": "x", "dense_epochs": "1,2"},
            "dense_epochs=1,2 has no effect without mosaic or mixup",
        ),
        (
            TrainSettings,
            {"data": "x", "mosaic": 1, "dense_epochs": "2,2"},
            "dense_epochs=2,2 leaves no epoch of 72 with mosaic",
        ),
        (
            TrainSettings,
            {"data": "x", "mosaic": 1, "epochs": 3, "dense_epochs": "3,9"},
            "dense_epochs=3,9 leaves no epoch of 3 with mosaic",
        ),
        (ExportSettings, {"opset": "20"}, "opset must be at most 19, found 20"),
        (
            ExportSettings,
            {"format": "onx"},
            "format must be one of onnx, engine, openvino, found 'onx'; did you",
        ),
        (
            TrainSettings,
            {"data": "x", "dense_epochs": "a,b"},
            "dense_epochs must be a list of 2 whole n",
        ),
        (
            TrainSettings,
            {"data": "x", "dense_epochs": "-1,3"},
            "dense_epochs[0] must be at least 0",
        ),
    ],
)
def test_mistakes_are_named(cls: Any, pairs: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings_from_pairs(cls, pairs)
    assert sentence in str(caught.value)


def test_direct_construction_is_checked_too() -> None:
    with pytest.raises(UsageError, match="batch must be at least 1"):
        TrainSettings(data="x", batch=0)
    with pytest.raises(UsageError, match="imgsz must be a multiple of 32, for example 288"):
        TrainSettings(data="x", imgsz=300)
    with pytest.raises(UsageError, match="save_conf has no effect without save_txt"):
        PredictSettings(source="x", save_conf=True)


def test_cfg_stands_below_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("data: a.yaml\nepochs: 3\ndevice: 0\nlr: 1e-3\nimgsz: [32, 64]\n")
    settings = settings_from_pairs(TrainSettings, {"cfg": str(file), "epochs": "5"})
    assert (settings.data, settings.epochs, settings.lr) == ("a.yaml", 5, 1e-3)
    assert (settings.device, settings.imgsz) == ("0", (32, 64))


def test_mistakes_in_cfg_name_the_file(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("data: a.yaml\nepoch: 3\n")
    with pytest.raises(UsageError, match=r"my\.yaml: epoch is not a key of train; did you mean"):
        settings_from_pairs(TrainSettings, {"cfg": file})
    with pytest.raises(ConfigError, match="does not exist"):
        settings_from_pairs(TrainSettings, {"cfg": "absent.yaml", "data": "x"})


def test_size_hw() -> None:
    assert size_hw(640) == (640, 640)
    assert size_hw((320, 640)) == (320, 640)


def test_every_mode_is_listed() -> None:
    assert list(MODES) == [
        "train",
        "val",
        "predict",
        "track",
        "export",
        "benchmark",
        "compare",
        "tradeoff",
        "info",
        "convert",
        "check",
        "models",
        "env",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1: 2\n", "my.yaml: 1 is not a key; keys are strings"),
        ("epochs: 1000000000000\n", "train: epochs must be at most 1000000000, found 10000000000"),
        ("imgsz: 1048576\n", "train: imgsz must be at most 16384, found 1048576"),
        ("workers: 100000\n", "train: workers must be at most 1024, found 100000"),
        ("num_denoising: 1000000\n", "train: num_denoising must be at most 10000, found 1000000"),
        ("lr: .inf\n", "train: lr must be a finite number, found inf"),
        ("lr: 1e999\n", "train: lr must be a finite number, found inf"),
        ("device: [[0]]\n", "train: device must be a text, found [[0]]"),
        ("device: {a: 1}\n", "train: device must be a text, found {'a': 1}"),
        ("cache: [a, b]\n", "train: cache must be one of off, ram, disk, found 'a,b'"),
        ("recipe: {a: 1}\n", "train: recipe must be a text, found {'a': 1}"),
        (f"{'k' * 1000}: 1\n", f"{'k' * 57}... is not a key of train"),
    ],
)
def test_settings_files_have_the_same_keys_and_ranges(
    tmp_path: Path, text: str, sentence: str
) -> None:
    (tmp_path / "my.yaml").write_text(f"data: x\n{text}")
    with pytest.raises(UsageError) as caught:
        settings_from_pairs(TrainSettings, {"cfg": str(tmp_path / "my.yaml")})
    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 300
