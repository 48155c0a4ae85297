"""Which of D-FINE, DEIM, RT-DETRv4 and DEIMv2 a file is, and what it says besides its tensors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rtdetr_cli.config.model import DEIMv2DecoderConfig, FDRDecoderConfig
from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.weights.decoder_family import (
    activation_of,
    check_same_decoder,
    check_told,
    find_family,
    share_box_heads,
    take_scale,
)

PLAIN = {"decoder.query_pos_head.layers.1.weight": torch.zeros(1)}
DEEP = {"decoder.query_pos_head.layers.2.weight": torch.zeros(1)}
REFINED = {"decoder.pre_bbox_head.layers.0.weight": torch.zeros(1)}
DEIMV2 = REFINED | {"decoder.decoder.layers.0.norm1.scale": torch.zeros(1)}


@pytest.mark.parametrize(
    ("weights", "name", "told", "possible", "family"),
    [
        (REFINED, "dfine_s_coco.pth", None, (), "dfine"),
        (REFINED, "D-FINE-S.safetensors", None, (), "dfine"),
        (REFINED, "deim_dfine_hgnetv2_s_coco_120e.pth", None, (), "deim"),
        (REFINED, "rtdetrv4-l.pth", None, (), "rtdetrv4"),
        (REFINED, "RTv4-L-hgnet.pth", None, (), "rtdetrv4"),
        (REFINED, "best_stg2.pth", "deim", (), "deim"),
        (REFINED, "dfine_s.pth", "dfine", (), "dfine"),
        (REFINED, "model.safetensors", None, ("dfine",), "dfine"),
        (REFINED, "model.safetensors", None, ("deim", "rtdetrv4"), "deim"),
        (DEIMV2, "model.safetensors", None, (), "deimv2"),
        (DEIMV2, "deim_atto.pth", None, (), "deimv2"),
        (DEEP, "best.pth", None, (), "deim"),
        (PLAIN, "rtdetr_r18vd.pth", None, (), "rtdetr"),
    ],
)
def test_tensors_metadata_name_and_key_say_the_family(weights, name, told, possible, family):
    assert find_family(weights, name, told, possible) == family


@pytest.mark.parametrize(
    ("weights", "name", "told", "possible", "sentence"),
    [
        (
            REFINED,
            "best.pth",
            None,
            (),
            "best.pth fits D-FINE, .* as well as DEIM .* begin the name",
        ),
        (REFINED, "dfine_s.pth", "deim", (), "is D-FINE by its name and DEIM by family=deim"),
        (REFINED, "dfine.pth", None, ("rtdetrv4",), "holds RT-DETRv4, but the name of the file"),
        (REFINED, "a.pth", "deim", ("dfine",), "holds D-FINE, but family=deim says DEIM: leave"),
        (DEIMV2, "dfine_n.pth", None, (), "holds DEIMv2, but .* says D-FINE: rename"),
        (DEIMV2, "best.pth", "deim", (), "holds DEIMv2, but family=deim says DEIM: leave"),
        (DEEP, "best.pth", "dfine", (), "holds DEIM, but family=dfine says D-FINE"),
        (PLAIN, "deim_rtdetrv2_r18vd.pth", None, (), "holds RT-DETR, but the name .* says DEIM"),
        (PLAIN, "x.pth", "rtdetrv4", (), "holds RT-DETR, but family=rtdetrv4"),
    ],
)
def test_no_family_is_guessed(weights, name, told, possible, sentence):
    with pytest.raises(WeightsError, match=sentence):
        find_family(weights, name, told, possible)


def test_only_dfine_and_rtdetr_have_relu():
    assert [activation_of(one) for one in ("rtdetr", "dfine", "deim", "rtdetrv4", "deimv2")] == [
        *("relu", "relu", "silu", "silu", "silu")
    ]


def test_a_key_that_contradicts_a_file_of_ours_is_rejected(tiny_config):
    config = replace(tiny_config, decoder=FDRDecoderConfig(activation="silu"))
    check_told(config, None, "a.pt")
    check_told(config, "rtdetrv4", "a.pt")
    with pytest.raises(WeightsError, match="with silu, but family=dfine says D-FINE"):
        check_told(config, "dfine", "a.pt")
    config = replace(tiny_config, decoder=DEIMv2DecoderConfig(activation="silu"))
    for told in ("rtdetrv4", "deim"):
        with pytest.raises(WeightsError, match=f"family={told} says"):
            check_told(config, told, "a.pt")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"activation": "silu"}, "decoder.activation silu"), ({"reg_scale": 8.0}, "reg_scale 8.0")],
)
def test_weights_of_an_equal_decoder_that_computes_something_else(change, sentence, tiny_config):
    given = replace(tiny_config, decoder=FDRDecoderConfig(**change))
    own = replace(tiny_config, decoder=FDRDecoderConfig())
    check_same_decoder(own, own, "a.pt")
    check_same_decoder(tiny_config, own, "a.pt")  # check_fit names the tensors
    with pytest.raises(
        WeightsError, match=f"a.pt was trained with .*{sentence}, but .*give model=a"
    ):
        check_same_decoder(own, given, "a.pt")


def test_the_constants_are_taken_out_of_the_weights():
    weights = REFINED | {
        "decoder.up": torch.tensor([0.5]),
        "decoder.reg_scale": torch.tensor([8]),  # int64, as D-FINE stores it
        "decoder.decoder.reg_scale": torch.tensor([8]),
    }
    assert take_scale(weights, "x") == 8
    assert set(weights) == set(REFINED)
    assert take_scale(dict(PLAIN), "x") is None


def heads(*values):
    return DEIMV2 | {
        **{f"decoder.dec_score_head.{layer}.weight": torch.zeros(1) for layer in range(3)},
        **{f"decoder.dec_bbox_head.{i}.bias": torch.tensor([v]) for i, v in enumerate(values)},
    }


def test_a_head_of_all_layers_is_kept_once():
    assert share_box_heads(weights := heads(7.0, 7.0, 7.0))
    assert share_box_heads(once := heads(7.0))
    assert set(weights) == set(once)
    assert share_box_heads(last := {**heads(), "decoder.dec_bbox_head.2.bias": torch.ones(1)})
    assert set(last) == set(once)
    assert not share_box_heads(heads(7.0, 7.0, 8.0))
    assert not share_box_heads(dict(REFINED))
