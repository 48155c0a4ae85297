"""Plain values become typed fields, or a complaint names the key."""

from typing import Annotated

import numpy as np
import pytest
import torch

from rtdetr_cli.config.fields import FieldError, OneOf, Range, convert, parse, unwrap

SHAPES = Annotated[str, OneOf(("round", "square"), (("squared", "it is called square"),))]


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (3, float, 3.0),
        ([1, 2], tuple[int, ...], (1, 2)),
        (range(2), tuple[int, ...], (0, 1)),
        (7, tuple[int, ...], (7,)),
        (np.int64(7), tuple[int, ...] | None, (7,)),
        (torch.tensor([1, 2]), tuple[int, int], (1, 2)),
        (torch.tensor(0.5), Annotated[float, Range(0, 1)], 0.5),
        (np.True_, bool, True),
        (True, Annotated[bool | float, Range(0, 0.9)], True),
    ],
)
def test_values_that_mean_the_field(value, hint, expected):
    found = convert("key", value, hint)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint", "complaint"),
    [
        (True, tuple[int, ...], "must be a list of whole numbers, found True"),
        ("ab", tuple[int, ...], "must be a list of whole numbers, found 'ab'"),
        (7, tuple[int, int], "must be a list of 2 whole numbers, found 7"),
        (np.array([0.5]), float, "must be a number, found [0.5]"),
        (1.0, Annotated[bool | float, Range(0, 0.9)], "must be at most 0.9, found 1.0"),
        ("squar", SHAPES, "must be one of round, square, found 'squar'; did you mean square?"),
        ("squared", SHAPES, "must be one of round, square (it is called square), found 'squared'"),
    ],
)
def test_complaints(value, hint, complaint):
    with pytest.raises(FieldError) as caught:
        convert("key", value, hint)
    assert caught.value.complaint == complaint


def test_texts_are_parsed_by_the_first_type_that_fits():
    assert [parse(text, int | float | bool | None) for text in ("1", "1.5", "True", "none")] == [
        1,
        1.5,
        True,
        None,
    ]
    assert parse("a", int | float | str) == "a"


def test_only_arrays_and_their_numbers_are_unwrapped():
    assert unwrap(np.array([[1], [2]])) == [[1], [2]]
    assert unwrap("text") == "text"
