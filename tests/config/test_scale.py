"""How large an architecture may be, counted before anything of it is built."""

from __future__ import annotations

from typing import Any

import pytest

from rtdetr_cli.config.load import load_model_config, model_config_from_dict, model_config_to_dict
from rtdetr_cli.config.scale import (
    MAX_ACTIVATIONS,
    MAX_PARAMETERS,
    MAX_TENSORS,
    check_activations,
    largest_activations,
    least_amount,
)
from rtdetr_cli.core.errors import ConfigError


def test_the_limits_are_several_times_the_largest_published_network() -> None:
    largest = load_model_config("rtdetr-h")
    tensors, values = least_amount(largest, 80)
    assert (tensors, round(values / 1e6)) == (212, 125)  # 126 million with norms and biases
    assert tensors * 40 < MAX_TENSORS
    assert values * 7 < MAX_PARAMETERS
    assert max(largest_activations(largest, (8192, 8192)).values()) * 2 < MAX_ACTIVATIONS
    check_activations(largest, (8192, 8192), "h.yaml")


@pytest.mark.parametrize(
    ("name", "parameters"),
    # training networks of the reference (../shared/reference/dfine.md, section 2)
    [
        ("deimv2-atto", 508_985),
        ("deimv2-femto", 983_945),
        ("deimv2-pico", 1_539_539),
        ("deimv2-n", 3_600_421),
        ("dfine-n", 3_782_693),
        ("dfine-x", 62_621_560),
    ],
)
def test_the_estimate_is_below_every_published_network(name: str, parameters: int) -> None:
    assert 0.85 * parameters < least_amount(load_model_config(name), 80)[1] <= parameters


def test_maps_are_those_of_the_widest_block() -> None:
    # second block of the first stage: what enters, six layers, what leaves (models/rtdetr-h.yaml)
    found = largest_activations(load_model_config("rtdetr-h"), (640, 640))
    assert found["backbone"] == 160 * 160 * (192 + 6 * 96 + 192)


def changed(name: str, section: str, **fields: object) -> dict[str, Any]:
    values = model_config_to_dict(load_model_config(name))
    return {**values, section: {**values[section], **fields}}


@pytest.mark.parametrize(
    ("section", "fields", "sentence"),
    [
        ("decoder", {"num_layers": 10**9}, "decoder.num_layers must be at most 64, found 10000000"),
        ("encoder", {"num_csp_blocks": 10**9}, "encoder.num_csp_blocks must be at most 64, found"),
        ("encoder", {"expansion": 1e9}, "encoder.expansion must be at most 16, found 1000000000.0"),
        ("encoder", {"expansion": float("inf")}, "encoder.expansion must be a finite number"),
        ("encoder", {"expansion": 10**400}, "encoder.expansion must be a finite number, found a"),
        ("encoder", {"hidden_dim": 4, "num_heads": 1, "expansion": 0.1}, "leaves no channel"),
        ("decoder", {"num_points": [10**9, 1, 1]}, "decoder.num_points[0] must be at most 64, fou"),
        ("decoder", {"ffn_dim": 2**63}, "decoder.ffn_dim must be at most 65536, found 92233720368"),
        ("decoder", {"num_queries": 10**6}, "decoder.num_queries must be at most 16384, found"),
        ("decoder", {"sampling": ["a"]}, "decoder.sampling must be a text, found ['a']"),
        ("decoder", {"sampling": "x"}, "decoder.sampling must be one of bilinear, discrete, found"),
        ("backbone", {"type": ["hgnetv2"]}, "backbone.type must be hgnetv2 or presnet, found ['"),
        ("backbone", {"type": {}}, "backbone.type must be hgnetv2 or presnet, found {}"),
        ("encoder", {"hidden_dim": 16384, "ffn_dim": 65536}, "encoder makes this a network of"),
        (
            "decoder",
            {"num_queries": 8400, "hidden_dim": 256, "num_heads": 256},
            "decoder has 1.81e+10",
        ),
    ],
)
def test_what_no_real_network_has_is_refused(
    section: str, fields: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        model_config_from_dict(changed("rtdetr-n", section, **fields), "m.yaml")
    assert str(caught.value).startswith("m.yaml: ")
    assert sentence in str(caught.value)


def test_stages_have_ranges_and_odd_kernels() -> None:
    values = model_config_to_dict(load_model_config("rtdetr-n"))
    stages = values["backbone"]["stages"]
    for field, value, sentence in (
        ("kernel", 4, "backbone.stages must have odd kernels"),
        ("kernel", 99, "backbone.stages[1].kernel must be at most 31, found 99"),
        ("blocks", 10**6, "backbone.stages[1].blocks must be at most 512, found 1000000"),
        ("out", 1, "backbone.stages[1].out must be at least 2, found 1"),
        ("layers", 65, "backbone.stages[1].layers must be at most 64, found 65"),
    ):
        changed_stages = [stages[0], {**stages[1], field: value}, *stages[2:]]
        with pytest.raises(ConfigError) as caught:
            model_config_from_dict(
                {**values, "backbone": {**values["backbone"], "stages": changed_stages}}, "m.yaml"
            )
        assert sentence in str(caught.value)


def test_a_size_that_no_machine_computes_is_refused() -> None:
    largest = load_model_config("rtdetr-h")
    with pytest.raises(ConfigError, match=r"at 16384x16384 pixels backbone has 1\.61e\+10 values"):
        check_activations(largest, (16384, 16384), "h.yaml")
