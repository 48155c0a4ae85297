from __future__ import annotations

import pytest
import torch

from rtdetr_cli.weights.foreign import points_per_level
from rtdetr_cli.weights.plausible import class_names, count, input_size, norm_eps


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cat", "dog"], {0: "cat", 1: "dog"}),
        ({1: "dog", 0: "cat"}, {0: "cat", 1: "dog"}),
        ({0: "cat\x1b[2J\n"}, {0: r"cat\x1b[2J\n"}),
        ({0: "cat", 7: "dog"}, None),
        ({"0": "cat"}, None),
        ({0: ["cat"]}, None),
        ({10**1000: "cat"}, None),
        (5, None),
    ],
)
def test_names_are_printable_strings_for_0_1_2_or_none(names, expected):
    assert class_names(names) == expected


@pytest.mark.parametrize("value", [0, -1, True, 2**17, 10**1000, "3", None, [3], 3.0])
def test_an_invalid_count_is_none(value):
    assert count(value) is None


@pytest.mark.parametrize("value", [0.0, -1e-5, float("nan"), float("inf"), 1e308, "1e-5", None])
def test_an_invalid_epsilon_is_none(value):
    assert norm_eps(value) is None


def test_sizes_are_rounded_up_and_bounded():
    assert input_size(330) == (352, 352)
    assert input_size([64, 96]) == (64, 96)
    assert [input_size(v) for v in (0, 2**15, [32], "640", None, [10**30, 32])] == [None] * 6


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 1e-12])
def test_invalid_point_scales_do_not_loop_forever(scale):
    assert points_per_level({"num_points_scale": torch.full((3,), scale)}) == ()
    assert points_per_level({"num_points_scale": torch.full((12,), 0.25)}) == (4, 4, 4)
