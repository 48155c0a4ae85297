from __future__ import annotations

import pytest

from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.convert import ConvertSettings
from rtdetr_cli.core.errors import UsageError

DATA = {"data": "x", "format": "coco", "out": "y"}


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        ({}, "convert: give model= (weights) or data= (a data set), for example model="),
        (DATA | {"model": "a.pt"}, "model= is weights and data= a data set; give one of them"),
        ({"data": "x"}, "format must be one of coco, yolo, voc with data="),
        (DATA | {"format": "hf"}, "format must be one of coco, yolo, voc with data=, found hf"),
        (
            {"model": "a.pt", "format": "yolo"},
            "format must be one of rtdetr, official, hf, safetensors with model=, found yolo",
        ),
        ({"model": "a.pt", "classes": "0"}, "convert: classes has no effect with model="),
        ({"model": "a.pt", "images": "copy"}, "convert: images has no effect with model="),
        (DATA | {"out": None}, "data= needs out=, a new folder"),
        (DATA | {"split": "0.8"}, "split must be two or three fractions that sum to 1"),
        (DATA | {"split": "0.8,0.1"}, "split must be two or three fractions that sum to 1"),
        (DATA | {"split": "0.8,a"}, "split must be a list of numbers, found '0.8,a'"),
        (DATA | {"split": "2,-1"}, "split[0] must be at most 1, found 2"),
        (DATA | {"group": "folder"}, "convert: group has no effect without split="),
        (DATA | {"seed": "3"}, "convert: seed has no effect without split="),
        (DATA | {"split": "0.5,0.5", "group": "("}, "group=( is not a regular expression: "),
        (DATA | {"split": "0.5,0.5", "group": "a"}, "group=a has no (group) that names what"),
        (DATA | {"images": "move"}, "images must be one of copy, link, none, found 'move'"),
        (DATA | {"classes": [1.5]}, "classes[0] must be a whole number or a text, found 1.5"),
        (DATA | {"classes": True}, "classes must be a list of whole numbers or texts, found True"),
    ],
)
def test_keys_that_do_not_fit_are_named(pairs, sentence):
    with pytest.raises(UsageError) as caught:
        settings_from_pairs(ConvertSettings, pairs)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("pairs", [{"model": "a.pt"}, {"model": "a.pt", "format": "hf"}, DATA])
def test_weights_need_a_model_and_data_sets_a_format_and_a_folder(pairs):
    settings = settings_from_pairs(ConvertSettings, pairs)
    assert settings.format == pairs.get("format")


@pytest.mark.parametrize(
    ("text", "classes"),
    [("0,cat", (0, "cat")), ("[2, 1]", (2, 1)), ("cat", ("cat",)), (["cat", 3], ("cat", 3))],
)
def test_classes_are_names_or_indices(text, classes):
    assert settings_from_pairs(ConvertSettings, DATA | {"classes": text}).classes == classes


def test_fractions_of_a_split():
    settings = settings_from_pairs(ConvertSettings, DATA | {"split": "0.7,0.2,0.1", "seed": 3})
    assert settings.split == (0.7, 0.2, 0.1)
