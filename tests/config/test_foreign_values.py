"""Values of Ultralytics become ours, or one sentence says why not."""

from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from rtdetr_cli.config.foreign_keys import FOREIGN_KEYS
from rtdetr_cli.config.foreign_values import note
from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.modes import MODES
from rtdetr_cli.core.errors import UsageError

NEEDED = {"train": {"data": "x"}, "val": {"data": "x"}, "predict": {"source": "x"}}


@pytest.fixture(autouse=True)
def _notes_are_printed_again():
    note.cache_clear()


def settings(mode: str, /, **pairs: object) -> Any:
    return settings_from_pairs(MODES[mode], {**NEEDED.get(mode, {}), **pairs})


@pytest.mark.parametrize(
    ("mode", "pairs", "expected"),
    [
        ("train", {"amp": True}, {"amp": "auto"}),
        ("train", {"amp": "False"}, {"amp": "off"}),
        ("train", {"cache": True}, {"cache": "ram"}),
        ("train", {"cache": "Disk"}, {"cache": "disk"}),
        ("train", {"optimizer": "AdamW"}, {"optimizer": "adamw"}),
        ("train", {"optimizer": "auto"}, {"optimizer": "adamw"}),
        ("train", {"optimizer": "Muon"}, {"optimizer": "muon"}),
        ("train", {"optimizer": "SGD", "lr0": "0.01"}, {"optimizer": "sgd", "lr": 0.01}),
        ("train", {"lr0": "0.01", "optimizer": "auto"}, {"lr": None}),
        ("train", {"lr0": 0.01, "optimizer": "AdamW"}, {"lr": 0.01}),
        ("train", {"lr0": 1e-4, "fliplr": "0.2"}, {"lr": 1e-4, "flip": 0.2}),
        ("train", {"cos_lr": "True"}, {"schedule": "cosine"}),
        ("train", {"cos_lr": False}, {"schedule": None}),
        ("train", {"patience": 100, "epochs": 100}, {"patience": 100}),
        ("train", {"save_period": -1}, {"save_period": 0}),
        ("train", {"pretrained": True}, {"pretrained": None}),
        ("train", {"pretrained": "False", "model": "rtdetr-l.yaml"}, {"pretrained": None}),
        ("train", {"pretrained": "a.pt", "model": "a.yaml"}, {"pretrained": "a.pt"}),
        ("train", {"freeze": "2"}, {"freeze": "2"}),
        ("train", {"freeze": 10}, {"freeze": "backbone"}),
        ("train", {"freeze": list(range(10))}, {"freeze": "backbone"}),
        ("train", {"freeze": "[0, 1, 2, 3]"}, {"freeze": "2"}),
        ("train", {"freeze": "encoder,decoder"}, {"freeze": "encoder,decoder"}),
        ("train", {"freeze": 0}, {"freeze": "0"}),
        ("train", {"freeze": []}, {"freeze": None}),
        ("train", {"device": ""}, {"device": None}),
        ("train", {"multi_scale": "0.5"}, {"multi_scale": 0.5}),
        ("train", {"batch": 0.7}, {"batch": -1}),
        ("train", {"device": "[0,1]"}, {"device": "0,1"}),
        ("train", {"device": "cuda:1"}, {"device": "cuda:1"}),
        (
            "train",
            {"close_mosaic": "10", "mosaic": 1.0, "epochs": "50"},
            {"dense_epochs": (0, 40)},
        ),
        ("train", {"close_mosaic": 0, "mosaic": 1.0, "epochs": 50}, {"dense_epochs": (0, 50)}),
        ("train", {"close_mosaic": 10}, {"dense_epochs": None}),
        ("train", {"imgsz": "[300, 640]"}, {"imgsz": (320, 640)}),
        ("val", {"batch": -1}, {"batch": 16}),
        ("val", {"imgsz": np.int64(300), "quantize": 16}, {"imgsz": 320, "half": True}),
        ("val", {"conf": None, "max_det": None}, {"conf": 0.0, "max_det": 300}),
        ("predict", {"imgsz": [640]}, {"imgsz": 640}),
        ("predict", {"classes": np.array([0, 2])}, {"classes": (0, 2)}),
        ("predict", {"hide_labels": "true", "hide_conf": False}, {"show_labels": False}),
        ("predict", {"line_thickness": 3, "boxes": True}, {"line_width": 3}),
        ("predict", {"boxes": "False"}, {"show_boxes": False}),
        ("predict", {"save_conf": True}, {"save_conf": False}),
        ("predict", {"agnostic_nms": True}, {"agnostic_nms": False}),
        ("predict", {"agnostic_nms": True, "nms": 0.6}, {"agnostic_nms": True, "nms": 0.6}),
        ("predict", {"nms": "false"}, {"nms": None}),
        ("predict", {"save_conf": True, "save_txt": True}, {"save_conf": True}),
        ("train", {"optimizer": "None", "cache": None}, {"optimizer": "adamw", "cache": "off"}),
        ("predict", {"quantize": "fp32"}, {"half": False}),
        ("export", {"format": "TensorRT", "workspace": 4}, {"format": "engine", "workspace": 4.0}),
        ("export", {"format": "ONNX", "workspace": 4}, {"format": "onnx", "workspace": None}),
        ("export", {"opset": None, "quantize": 16}, {"opset": 17, "half": True}),
        ("export", {"quantize": 8, "data": "x"}, {"int8": True}),
        ("benchmark", {"format": "tensorrt"}, {"formats": "engine"}),
        ("benchmark", {"format": "", "half": False}, {"formats": None}),
        ("info", {"imgsz": 300}, {"imgsz": 320}),
    ],
)
def test_their_values_are_ours(mode, pairs, expected):
    built = settings(mode, **pairs)
    assert {key: getattr(built, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("mode", "pairs", "sentence"),
    [
        ("train", {"optimizer": "SGD"}, "train: optimizer=sgd needs lr=; the recipe's learning"),
        ("train", {"optimizer": "RAdam"}, "is trained with AdamW; give adamw), found 'radam'"),
        ("train", {"optimizer": "MuSGD"}, "is trained with AdamW; give adamw), found 'musgd'"),
        ("train", {"pretrained": False}, "brings its own weights; give an architecture, such as"),
        ("train", {"freeze": [0, 1, 2]}, "no part of the network is these layers of Ultralytics"),
        ("train", {"freeze": 7}, "freeze=7: no part of the network"),
        ("train", {"freeze": "[0]"}, "freeze='[0]': no part of the network"),
        ("train", {"freeze": [3, 4]}, "give freeze=1 to 4 (stages of the backbone), backbone, or"),
        ("train", {"multi_scale": 1.0}, "multi_scale must be at most 0.9, found 1.0"),
        ("train", {"batch": 1.5}, "batch must be a whole number, found 1.5"),
        ("train", {"device": -1}, "device=-1: idle GPUs are not searched; give numbers"),
        ("train", {"device": [-1, -1]}, "device=-1,-1: idle GPUs are not searched"),
        ("train", {"scale": 0.9}, "scale=0.9 is not supported: zoom_out= and iou_crop= are"),
        (
            "train",
            {"hsv_h": 0.1, "box": 7, "shear": "2"},
            "hsv_h=0.1 is not supported (nor shear=2):",
        ),
        ("train", {"trainer": object}, "classes of Ultralytics are not used; model.add_callback"),
        ("train", {"lr": 1e-4, "lr0": 1e-4}, "train: lr0 and lr set the same key, lr; give one"),
        ("train", {"close_mosaic": "x"}, "close_mosaic must be a whole number, found 'x'"),
        ("train", {"close_mosaic": 5, "mosaic": 1, "time": 1}, "close_mosaic needs epochs; with"),
        ("train", {"cos_lr": "x"}, "cos_lr must be true or false, found 'x'"),
        ("train", {"warmup_epochs": 1e300}, "warmup_epochs must be at most 1000000, found 1e+300"),
        ("train", {"warmup_epochs": 3, "warmup_steps": 3}, "the same length; give one of them"),
        ("predict", {"quantize": 8}, "quantize=8: give half=true, or `rtdetr export int8=true`"),
        ("predict", {"hide_labels": "x"}, "show_labels must be true or false, found 'x'"),
        ("predict", {"imgsz": 0}, "imgsz must be at least 32, found 0"),
        ("predict", {"nms": True}, "nms must be a number, found True"),
        ("export", {"opset": 12}, "opset=12: 17 is the first with LayerNormalization"),
        ("export", {"opset": "20"}, "opset must be at most 19, found 20"),
        ("export", {"format": "torchscript"}, "(TorchScript is deprecated; onnx and openvino"),
        ("export", {"format": "imx"}, "(it is made by its vendor's compiler; export onnx for it)"),
        ("export", {"int8": True}, "int8=true needs data= to calibrate on"),
    ],
)
def test_other_values_are_refused_with_a_reason(mode, pairs, sentence):
    with pytest.raises(UsageError) as caught:
        settings(mode, **pairs)
    assert sentence in str(caught.value)
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "pairs", "line"),
    [
        ("train", {"imgsz": 300}, "imgsz=300 is rounded up to 320, as sizes are multiples of 32"),
        ("train", {"batch": 0.7}, "batch=0.7 is batch=-1 here, which uses 80 % of the free memory"),
        ("train", {"lr0": 0.01}, "lr0=0.01 has no effect without optimizer=, as in Ultralytics"),
        ("train", {"lr0": 0.02}, "lr0=0.02 is lr=0.02, 200 times the recipe's 0.0001"),
        (
            "train",
            {"lr0": 0.01, "model": "a.yaml", "optimizer": "AdamW"},
            "lr0=0.01 is lr=0.01, 10 times the recipe's 0.001",
        ),
        (
            "train",
            {"hsv_h": 0.015, "hsv_s": "0.7", "hsv_v": 0.4, "translate": 0.1, "scale": 0.5},
            "hsv_h, hsv_s, hsv_v, translate, scale have no effect: the recipe's photometric",
        ),
        ("train", {"freeze": 3}, "freeze=3 counts stages of the backbone, where Ultralytics"),
        ("train", {"freeze": 10}, "freeze is backbone: the first 10 layers of Ultralytics'"),
        ("train", {"close_mosaic": 10}, "close_mosaic has no effect: mosaic and mixup are off"),
        ("train", {"pretrained": True, "model": "a.yaml"}, "a.yaml has no weights; pretrained="),
        ("train", {"box": 7.5, "cls": 0.5, "dfl": 1.5}, "box, cls, dfl have no effect: the loss"),
        ("predict", {"save_conf": True}, "save_conf has no effect without save_txt"),
        ("predict", {"agnostic_nms": True}, "agnostic_nms has no effect without nms"),
        ("export", {"workspace": 4}, "workspace has no effect: it limits TensorRT, and the format"),
    ],
)
def test_a_difference_is_said_once(mode, pairs, line, capsys):
    for _ in range(2):
        settings(mode, **pairs)
    error = capsys.readouterr().err
    assert error.startswith(f"Note: {line}")
    assert error.count("\n") == 1


ODD = [2**70, float("nan"), "9" * 6000, "[", "\0", [[1]], {"a": 1}, np.array([1.5]), object]


@pytest.mark.parametrize("mode", ["train", "val", "predict", "export", "benchmark"])
def test_no_value_ends_in_a_traceback(mode):
    for key in [key for name, key in FOREIGN_KEYS if name == mode]:
        for value in ODD:
            with suppress(UsageError):
                settings(mode, **{key: value})


def test_keys_of_ours_print_nothing(capsys):
    settings("train", epochs=3, lr=1e-4, optimizer="sgd", imgsz=320, freeze="backbone", amp="off")
    assert capsys.readouterr().err == ""
