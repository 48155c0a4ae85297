"""Settings of `rtdetr check`."""

from __future__ import annotations

import pytest

from rtdetr_cli.config.settings.check import CheckSettings
from rtdetr_cli.core.errors import UsageError


def test_a_data_set_is_enough():
    settings = CheckSettings(data="my.yaml")
    assert (settings.imgsz, settings.num_queries, settings.strict) == (640, 300, False)


def test_an_input_size_of_no_model_is_refused():
    with pytest.raises(UsageError, match="imgsz must be a multiple of 32"):
        CheckSettings(data="my.yaml", imgsz=650)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"split": "val"}, "split has no effect without model"),
        ({"fix": "out", "strict": True}, "strict has no effect with fix"),
        ({"batch": 2}, "batch has no effect without model"),
        ({"model": "rtdetr-n.yaml"}, "rtdetr-n.yaml is an architecture"),
    ],
)
def test_keys_without_effect_are_refused(keys, sentence):
    with pytest.raises(UsageError, match=sentence):
        CheckSettings(data="my.yaml", **keys)
