from __future__ import annotations

import pytest

from rtdetr_cli.config.confidence import parse_confidence
from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.core.errors import UsageError


def conf_of(value: object) -> object:
    return settings_from_pairs(PredictSettings, {"source": "a.jpg", "conf": value}).conf


@pytest.mark.parametrize(
    ("given", "expected"), [("0.4", 0.4), (0.4, 0.4), ("1", 1.0), (0, 0.0), ("auto", "auto")]
)
def test_a_number_stays_a_number(given, expected):
    found = conf_of(given)
    assert found == expected
    assert type(found) is type(expected)


def test_thresholds_by_class():
    assert parse_confidence("person:0.5, traffic light:0.3,a:b:1") == {
        "person": 0.5,
        "traffic light": 0.3,
        "a:b": 1.0,
    }
    assert parse_confidence("auto") is None


@pytest.mark.parametrize(
    "text", ["high", "person", "person:", ":0.5", "person:1.5", "person:nan", "a:0.5,,b:0.2", ""]
)
def test_another_form_is_an_error(text):
    with pytest.raises(UsageError, match="conf must be a number from 0 to 1, auto, or thresholds"):
        conf_of(text)


def test_a_class_twice_is_an_error():
    with pytest.raises(UsageError, match="conf names 'a' twice"):
        parse_confidence("a:0.5,a:0.6")


@pytest.mark.parametrize("value", ["1.5", 1.5, 2])
def test_a_number_out_of_range_names_the_limit(value):
    with pytest.raises(UsageError, match="conf must be at most 1, found"):
        conf_of(value)
