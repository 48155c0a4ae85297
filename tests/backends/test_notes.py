"""What exported files say about themselves: taken only with the right type and in range."""

import pytest

from rtdetr_cli.backends.notes import check_size, checked_notes, noted_names
from rtdetr_cli.core.errors import WeightsError

NOTES = {
    "rtdetr_format": 1,
    "names": {"0": "cat", "1": "a\x1b[31mb"},
    "preprocessing": {"size_hw": [64, 32], "antialias": False, "resize": "stretch"},
    "batch": [1, 2, 8],
    "later": {"any": ["thing"]},
}


def test_known_values_get_their_types_and_unknown_ones_stay():
    checked = checked_notes(NOTES, "x.onnx")
    assert checked["names"] == {0: "cat", 1: "a\\x1b[31mb"}
    assert checked["preprocessing"]["size_hw"] == (64, 32)
    assert checked["batch"] == (1, 2, 8)
    assert checked["later"] == {"any": ["thing"]}
    assert checked_notes({}, "x.onnx") == {}


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("names", ["a", "b"], "names must be a mapping"),
        ("names", {"0": ["b"]}, "names are no texts"),
        ("names", {"0": "a", "2": "b"}, "names are no texts"),
        ("names", {}, "names are no texts"),
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
    ],
)
def test_a_wrong_value_is_named(key, value, complaint):
    with pytest.raises(WeightsError, match=rf"x\.onnx has damaged metadata: .*{complaint}"):
        checked_notes({**NOTES, key: value}, "x.onnx")


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
def test_names_are_those_of_the_classes_from_0_on(value, names):
    assert noted_names(value) == names


@pytest.mark.parametrize(
    ("size_hw", "batch"), [((10**6, 10**6), None), ((0, 64), 1), ((64, 64), 0), ((640, 640), 10**9)]
)
def test_a_size_that_no_detector_has_is_refused(size_hw, batch):
    with pytest.raises(WeightsError, match=rf"takes images of {size_hw[0]}x{size_hw[1]}"):
        check_size(size_hw, batch, "x.onnx")
    check_size((1280, 1280), 64, "x.onnx")
