"""Metadata of exported files: accepted only with the right types and in range."""

import json

import pytest

from rtdetr_cli.backends.notes import (
    ExportNotes,
    check_format,
    check_size,
    names_by_index,
    parse_notes,
    required,
)
from rtdetr_cli.core.errors import WeightsError

NOTES = {
    "rtdetr_format": 1,
    "names": {"0": "cat", "1": "a\x1b[31mb"},
    "preprocessing": {"size_hw": [64, 32], "antialias": False, "resize": "stretch", "scale": 2},
    "batch": [1, 2, 8],
    "later": {"any": ["thing"]},
}
CALIBRATION = {
    **{"temperature": 0.4, "offset": -0.5, "thresholds": [0.5, 0.25], "data": "a/data.yaml"},
    **{"split": "val", "images": 5, "boxes": 9},
}


def test_a_calibration_is_read_and_written_unchanged():
    notes = parse_notes({**NOTES, "calibration": CALIBRATION}, "x.onnx")
    assert notes.calibration is not None
    assert notes.calibration.thresholds == (0.5, 0.25)
    assert notes.to_dict()["calibration"] == CALIBRATION


def test_known_values_get_their_types_and_unknown_ones_stay():
    notes = parse_notes(NOTES, "x.onnx")
    assert notes.names == {0: "cat", 1: "a\\x1b[31mb"}
    assert (notes.preprocessing.size_hw, notes.preprocessing.antialias) == ((64, 32), False)
    assert notes.batch == (1, 2, 8)
    assert notes.extra == {"later": {"any": ["thing"]}}
    assert notes.preprocessing.extra == {"scale": 2}
    assert (notes.dynamic, notes.num_queries, notes.verdict) == (None, None, None)
    assert parse_notes({}, "x.onnx") == ExportNotes()


def test_notes_are_written_with_the_keys_and_values_that_were_read():
    notes = parse_notes(NOTES, "x.onnx")
    written = json.loads(json.dumps(notes.to_dict()))
    assert written == {**NOTES, "names": {"0": "cat", "1": "a\\x1b[31mb"}}
    assert parse_notes(written, "x.onnx") == notes
    assert ExportNotes().to_dict() == {"rtdetr_format": 1, "batch": None}


def test_another_format_version_is_rejected():
    check_format("1", "x.onnx")
    with pytest.raises(WeightsError, match=r"x\.onnx has format version 2; this rtdetr reads 1"):
        check_format(2, "x.onnx")


def test_a_missing_value_that_is_required_is_named():
    assert required("T4", "gpu", "x.engine.json") == "T4"
    with pytest.raises(WeightsError, match=r"x\.engine\.json has no gpu in its metadata; export"):
        required(None, "gpu", "x.engine.json")


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("names", ["a", "b"], "names must be a mapping"),
        ("names", {"0": ["b"]}, "names must map the classes"),
        ("names", {"0": "a", "2": "b"}, "names must map the classes"),
        ("names", {}, "names must map the classes"),
        ("preprocessing", [], "preprocessing must be a mapping"),
        ("preprocessing", {"size_hw": [10**9, 32]}, r"size_hw\[0\] must be at most 16384"),
        ("preprocessing", {"size_hw": [0, 32]}, r"size_hw\[0\] must be at least 1"),
        ("preprocessing", {"size_hw": [64]}, "a list of 2 whole numbers"),
        ("preprocessing", {"antialias": 1}, "preprocessing.antialias must be true or false"),
        ("preprocessing", {"resize": "letterbox"}, "must be one of stretch"),
        ("architecture", "rtdetr-l", "architecture must be a mapping"),
        ("num_queries", 10**9, "num_queries must be at most 65536"),
        ("num_queries", True, "num_queries must be a whole number"),
        ("batch", [1, 2], "batch must be a whole number or a list of 3"),
        ("floats", "f64", "floats must be one of f32, bf16"),
        ("verdict", {"a": 1}, "verdict must be a text"),
        ("num_queries", None, "num_queries must not be null"),
        ("calibration", [], "calibration must be a mapping"),
        ("calibration", {**CALIBRATION, "temperature": -1}, "temperature must be at least 0.01"),
        ("calibration", {**CALIBRATION, "thresholds": [0.5]}, "1 thresholds for 2 classes"),
    ],
)
def test_a_wrong_value_is_reported_with_its_key(key, value, complaint):
    with pytest.raises(WeightsError, match=rf"x\.onnx has damaged metadata: .*{complaint}"):
        parse_notes({**NOTES, key: value}, "x.onnx")


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (["a", "b"], {0: "a", 1: "b"}),
        ({1: "b", 0: "a"}, {0: "a", 1: "b"}),
        ({"0": 0, "1": 1}, {0: "0", 1: "1"}),  # a data set of digits
        ([None], None),
        ([{}], None),
        ([], None),
        ({-1: "a"}, None),
        ({0.0: "a"}, None),
        (["a"] * 70_000, None),
        ({0: "a", "0": "b"}, {0: "b"}),
    ],
)
def test_names_cover_the_classes_from_0_on(value, names):
    assert names_by_index(value) == names


@pytest.mark.parametrize(
    ("size_hw", "batch"), [((10**6, 10**6), None), ((0, 64), 1), ((64, 64), 0), ((640, 640), 10**9)]
)
def test_an_implausible_input_size_is_rejected(size_hw, batch):
    with pytest.raises(WeightsError, match=rf"takes images of {size_hw[0]}x{size_hw[1]}"):
        check_size(size_hw, batch, "x.onnx")
    check_size((1280, 1280), 64, "x.onnx")
