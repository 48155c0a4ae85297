"""Names and indices of `classes=`."""

import pytest

from rtdetr_cli.core.class_names import class_indices
from rtdetr_cli.core.errors import UsageError

NAMES = {0: "person", 1: "bicycle", 2: "7", 3: "car"}


def test_names_and_indices_may_be_mixed() -> None:
    assert class_indices(["car", 0], NAMES, "model") == [3, 0]


def test_a_class_named_like_a_number_is_found_by_its_name() -> None:
    assert class_indices([7], NAMES, "model") == [2]


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (
            "bicicle",
            "classes: bicicle is neither a class of the model (person, bicycle, 7, ...) nor an "
            "index from 0 to 3; did you mean bicycle?",
        ),
        (4, "4 is neither"),
        (-1, "-1 is neither"),
    ],
)
def test_an_unknown_class_is_refused(wanted: int | str, sentence: str) -> None:
    with pytest.raises(UsageError) as error:
        class_indices([wanted], NAMES, "model")
    assert sentence in str(error.value)
