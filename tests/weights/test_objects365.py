"""Class names of Objects365."""

from __future__ import annotations

from rtdetr_cli.weights.objects365 import OBJECTS365_NAMES


def test_ids_have_the_names_of_the_annotations():
    """Ids as in the categories of zhiyuan_objv2_val.json."""
    assert list(OBJECTS365_NAMES) == list(range(366))
    assert len(set(OBJECTS365_NAMES.values())) == 366
    expected = {1: "Person", 6: "Car", 47: "Bicycle", 93: "Dog", 140: "Cat", 365: "Table Tennis"}
    assert {index: OBJECTS365_NAMES[index] for index in expected} == expected
