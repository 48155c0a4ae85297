"""The calibration record: round trip, and values that no file may have."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from rtdetr_cli.evaluation.calibration import Scaling
from rtdetr_cli.weights.calibration import Calibration, parse_calibration

GIVEN = Calibration(0.4, -0.66, (0.466, 0.647), "bccd/data.yaml", "val", 87, 1137)


def test_a_record_survives_json():
    assert parse_calibration(json.loads(json.dumps(GIVEN.to_dict())), 2) == GIVEN


def test_keys_of_later_versions_are_ignored():
    assert parse_calibration({**GIVEN.to_dict(), "later": [1]}, 2) == GIVEN


def test_probabilities_are_those_that_were_fitted():
    """evaluation/ fits and weights/ applies; the formula must be the same."""
    scores = np.linspace(0, 1, 11)
    expected = Scaling(GIVEN.temperature, GIVEN.offset).apply(scores)
    found = GIVEN.probabilities(scores)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert GIVEN.probabilities(scores.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("temperature", 0, r"calibration\.temperature must be at least 0.01"),
        ("temperature", -1, "at least"),
        ("temperature", math.nan, "must be a finite number"),
        ("temperature", "1", "must be a number"),
        ("temperature", True, "must be a number"),
        ("offset", math.inf, "must be a finite number"),
        ("offset", 10**400, "must be a finite number"),
        ("thresholds", [0.5], "1 thresholds for 2 classes"),
        ("thresholds", [0.5] * 1000, "1000 thresholds for 2 classes"),
        ("thresholds", [0.5, 1.5], r"thresholds\[1\] must be at most 1"),
        ("thresholds", [0.5, math.nan], "must be a finite number"),
        ("thresholds", [0.5, None], "must be a number"),
        ("thresholds", {"0": 0.5}, "must be a list of numbers"),
        ("data", "a\x1b[31mb", "no plain name"),
        ("data", "x" * 1000, "no plain name"),
        ("data", 3, "must be a text"),
        ("split", "all", "must be one of train, val, test"),
        ("images", -1, "at least 0"),
        ("boxes", 1.5, "must be a whole number"),
    ],
)
def test_a_wrong_value_is_named(key, value, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_calibration({**GIVEN.to_dict(), key: value}, 2)


@pytest.mark.parametrize("key", list(GIVEN.to_dict()))
def test_a_missing_value_is_named(key):
    values = {name: value for name, value in GIVEN.to_dict().items() if name != key}
    with pytest.raises(ValueError, match=f"calibration.{key} is missing"):
        parse_calibration(values, 2)


@pytest.mark.parametrize("values", [[], "text", 1, 0])
def test_what_is_no_mapping_is_rejected(values):
    with pytest.raises(ValueError, match="calibration must be a mapping of keys"):
        parse_calibration(values, 2)


def test_the_description_says_where_it_comes_from():
    assert GIVEN.describe() == (
        "temperature 0.400, offset -0.660, from bccd/data.yaml val: 87 images, 1137 boxes"
    )
