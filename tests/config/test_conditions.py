"""The conditions of `fail_if=`."""

from __future__ import annotations

import math

import pytest

from rtdetr_cli.config.conditions import METRICS, Condition, parse_conditions
from rtdetr_cli.config.settings.val import ValSettings
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.evaluation.metrics import STAT_NAMES


def test_every_coco_metric_can_be_named():
    assert METRICS[:12] == STAT_NAMES


def test_several_conditions_are_separated_by_commas_and_case_does_not_matter():
    assert parse_conditions("AP<0.45, ap50 <= .6,Recall>1") == [
        Condition("AP", "<", 0.45),
        Condition("AP50", "<=", 0.6),
        Condition("recall", ">", 1.0),
    ]


@pytest.mark.parametrize(
    ("sign", "below", "equal", "above"),
    [
        ("<", True, False, False),
        ("<=", True, True, False),
        (">", False, False, True),
        (">=", False, True, True),
    ],
)
def test_a_condition_holds_on_its_side(sign, below, equal, above):
    condition = Condition("AP", sign, 0.5)
    assert [condition.holds(value) for value in (0.4, 0.5, 0.6)] == [below, equal, above]


def test_an_undefined_metric_meets_every_condition():
    assert all(Condition("AP", sign, 0.5).holds(math.nan) for sign in ("<", "<=", ">", ">="))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "must be like AP<0.45"),
        ("AP", "must be like AP<0.45"),
        ("AP<0.4,", "must be like AP<0.45"),
        ("0.4>AP", "must be like AP<0.45"),
        ("AP<__import__('os')", "must be like AP<0.45"),
        ("recal<0.4", "recal is not a metric; did you mean recall"),
        ("loss>0.4", "loss is not a metric"),
        ("AP<45", "AP is from 0 to 1, found 45"),
    ],
)
def test_anything_else_is_refused_before_the_model_is_opened(text, complaint):
    with pytest.raises(UsageError, match=complaint):
        ValSettings(data="my.yaml", fail_if=text)
