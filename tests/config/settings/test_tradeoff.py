"""Settings of `rtdetr tradeoff`: lists, limits, and models that have no settings to choose."""

from __future__ import annotations

import pytest

from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.tradeoff import TradeoffSettings
from rtdetr_cli.core.errors import UsageError


def settings(**keys: object) -> TradeoffSettings:
    return settings_from_pairs(TradeoffSettings, {"model": "a.pt", "data": "my.yaml", **keys})


def test_lists_are_given_as_text_numbers_or_lists():
    found = settings(imgsz=(320, 640), decoder_layers=2, backend=["onnx"])
    assert (found.imgsz, found.decoder_layers, found.backend) == ((320, 640), (2,), ("onnx",))
    assert settings(backend="onnx").backend == ("onnx",)


def test_half_a_point_may_be_lost_unless_something_else_limits_the_choice():
    assert settings().allowed_drop == 0.5
    assert settings(max_drop=2).allowed_drop == 2
    assert settings(max_ms=10).allowed_drop is None
    assert settings(min_ap=0.4, max_drop=0).allowed_drop == 0


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"model": "best.onnx"}, "best.onnx is an exported file, in which decoder layers, queries"),
        ({"model": "x_openvino_model"}, "give the weights (.pt)"),
        ({"model": "rtdetr-n.yaml"}, "rtdetr-n.yaml has no weights, so its AP means nothing"),
        ({"imgsz": [300]}, "imgsz[0] must be a multiple of 32, for example 288"),
        ({"decoder_layers": [0]}, "decoder_layers[0] must be at least 1"),
        ({"backend": "tensorrt"}, "backend must be one of onnx, openvino"),
        ({"max_drop": -1}, "max_drop must be at least 0"),
        ({"min_ap": 45}, "min_ap must be at most 1"),
        ({"max_mss": 1}, "did you mean max_ms?"),
    ],
    ids=str,
)
def test_wrong_values_are_refused(keys, sentence):
    with pytest.raises(UsageError) as raised:
        settings(**keys)
    assert sentence in str(raised.value)
