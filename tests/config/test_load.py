"""Architectures: what the files say, and what is said about a wrong one."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from rtdetr_cli.config.load import (
    load_model_config,
    load_yaml,
    model_config_from_dict,
    model_config_to_dict,
)
from rtdetr_cli.config.model import HGNetv2Config, HGStage, ModelConfig, PResNetConfig
from rtdetr_cli.core.errors import ConfigError

NAMES = ["n", "r18", "r34", "r50m", "r50", "r101", "l", "x", "h"]
# reference/official-rtdetr.md, sections 2.2 and 5.1:
# encoder width, encoder FFN, expansion, decoder layers, eval layers, epochs, backbone lr, frozen
OFFICIAL = {
    "r18": (256, 1024, 0.5, 3, None, 120, 1e-4, False),
    "r34": (256, 1024, 0.5, 4, None, 120, 5e-5, False),
    "r50m": (256, 1024, 0.5, 6, 3, 84, 1e-5, True),
    "r50": (256, 1024, 1.0, 6, None, 72, 1e-5, True),
    "r101": (384, 2048, 1.0, 6, None, 72, 1e-6, True),
    "l": (256, 1024, 1.0, 6, None, 72, 5e-6, True),
    "x": (384, 2048, 1.0, 6, None, 72, 1e-6, True),
    "h": (512, 2048, 1.0, 6, None, 72, 5e-6, True),
}


@pytest.mark.parametrize("name", NAMES)
def test_architectures_round_trip(name: str) -> None:
    config = load_model_config(f"rtdetr-{name}")
    values = model_config_to_dict(config)
    assert model_config_from_dict(json.loads(json.dumps(values)), "checkpoint.pt") == config
    assert load_model_config(f"rtdetr-{name}.yaml") == config


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_rows(name: str) -> None:
    config = load_model_config(f"rtdetr-{name}")
    encoder, decoder, recipe = config.encoder, config.decoder, config.recipe
    assert recipe.freeze_stem == recipe.freeze_backbone_norm
    row = (
        encoder.hidden_dim,
        encoder.ffn_dim,
        encoder.expansion,
        decoder.num_layers,
        decoder.eval_layers,
        recipe.epochs,
        recipe.backbone_lr,
        recipe.freeze_stem,
    )
    assert row == OFFICIAL[name]
    assert (decoder.hidden_dim, decoder.ffn_dim, decoder.num_queries) == (256, 1024, 300)
    assert encoder.num_layers == (2 if name == "h" else 1)
    assert recipe.multi_scale == (name != "r18")


def test_r18_and_n_backbones() -> None:
    assert load_model_config("rtdetr-r18").backbone == PResNetConfig((2, 2, 2, 2), bottleneck=False)
    nano = load_model_config("rtdetr-n")
    assert nano.backbone == HGNetv2Config(
        (16, 16),
        (
            HGStage(16, 64, 1, 3, 3, light=False),
            HGStage(32, 256, 1, 3, 3, light=False),
            HGStage(64, 512, 2, 5, 3, light=True),
            HGStage(128, 1024, 1, 5, 3, light=True),
        ),
    )
    assert (nano.encoder.num_csp_blocks, nano.encoder.expansion) == (1, 1.0)


def test_a_path_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "backbone: {type: presnet, blocks: [1, 1, 1, 1], bottleneck: false}\n"
    (tmp_path / "rtdetr-l.yaml").write_text(f"{body}recipe: {{backbone_lr: 1e-4}}\n")
    monkeypatch.chdir(tmp_path)
    config = load_model_config("rtdetr-l.yaml")
    expected = ModelConfig("rtdetr-l", PResNetConfig((1, 1, 1, 1), bottleneck=False))
    assert config == replace(expected, recipe=replace(expected.recipe, backbone_lr=1e-4))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"decoder": {"num_query": 3}},
            "decoder.num_query is not a key; did you mean num_q",
        ),
        ({"decoder": {"num_layers": "six"}}, "decoder.num_layers must be a whole number, found 's"),
        ({"decoder": {"num_layers": True}}, "decoder.num_layers must be a whole number, found Tr"),
        ({"decoder": {"eval_layers": 2.5}}, "decoder.eval_layers must be a whole number"),
        ({"decoder": {"eval_layers": 7}}, "decoder.eval_layers must be in 1..num_layers"),
        (
            {"decoder": {"num_points": [4, 4]}},
            "decoder.num_points must have a number for each of the 3 maps",
        ),
        ({"decoder": {"num_points": [4, 4, 0]}}, "decoder.num_points[2] must be at least 1, found"),
        ({"encoder": {"hidden_dim": -256}}, "encoder.hidden_dim must be at least 1, found -256"),
        ({"recipe": {"backbone_lr": -1.0}}, "recipe.backbone_lr must be at least 0, found -1.0"),
        ({"decoder": 6}, "decoder must be a mapping of keys, found 6"),
        ({"encoder": {"hidden_dim": 250}}, "encoder.hidden_dim must be a multiple of"),
        (
            {"encoder": {"num_heads": 7}},
            "encoder.hidden_dim must be a multiple of encoder.num_heads, found 256 and 7",
        ),
        (
            {"decoder": {"num_heads": 3}},
            "decoder.hidden_dim must be a multiple of decoder.num_heads, found 256 and 3",
        ),
        ({"encodr": {}}, "encodr is not a key; did you mean encoder?"),
        ({"backbone": {"stem": [32, 48]}}, "backbone.type must be hgnetv2 or presnet, found None"),
        ({"backbone": {"type": "swin"}}, "backbone.type must be hgnetv2 or presnet, found 'swin'"),
        ({"backbone": {"type": "presnet"}}, "backbone.blocks is missing"),
        (
            {"backbone": {"type": "hgnetv2", "stem": [16, 16], "stages": [{"mid": 1}]}},
            "backbone.stages[0].out is missing",
        ),
        ({"backbone": None}, "backbone must be a mapping of keys"),
        (
            {"decoder": {"type": "fdr", "reg_max": 31}},
            "decoder.reg_max must be a multiple of 2, for example 32, found 31",
        ),
        ({"decoder": {"type": "deimv2", "ffn_dim": 1}}, "decoder.ffn_dim must be at least 2, fou"),
        ({"encoder": {"type": "lite"}}, "backbone.stages must list three stages for a lite enc"),
    ],
)
def test_mistakes_are_named(change: dict[str, object], sentence: str) -> None:
    values = {**model_config_to_dict(load_model_config("rtdetr-l")), **change}
    with pytest.raises(ConfigError) as caught:
        model_config_from_dict(values, "mine.yaml")
    assert sentence in str(caught.value)


def test_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"rtdetr-m\.yaml does not exist; did you mean rtdetr-"):
        load_model_config("rtdetr-m.yaml")
    with pytest.raises(ConfigError, match="known are deimv2-atto, "):
        load_model_config("/nowhere/zzz")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "bad.yaml:3: broken YAML: "),
        ("a: 1\n\tb: 2\n", "bad.yaml:2: broken YAML: "),
        ("a: 1\nb: 2\na: 3\n", "bad.yaml:3: broken YAML: a is a duplicate key"),
        ("- 1\n", "bad.yaml must contain keys and values, found [1]"),
        ("", "bad.yaml must contain keys and values, found None"),
        (
            "a: !!python/object:os.system {}\n",
            "bad.yaml:1: broken YAML: the tag python/object:os.sy",
        ),
    ],
)
def test_broken_yaml_is_named_with_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_yaml(path)
    assert sentence in str(caught.value)


def test_unreadable_yaml(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_yaml(tmp_path / "binary.yaml")
    with pytest.raises(ConfigError, match="does not exist"):
        load_yaml(tmp_path / "absent.yaml")
    (tmp_path / "train_copy.yaml").write_text("epochs: 3\n")
    with pytest.raises(ConfigError, match=r"not exist; did you mean train_copy\.yaml\?"):
        load_yaml(tmp_path / "default_copy.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_yaml(tmp_path)
    os.mkfifo(tmp_path / "fifo.yaml")
    for open_file in (load_yaml, load_model_config):
        with pytest.raises(ConfigError, match=r"fifo\.yaml is a pipe \(FIFO\), expected a file"):
            open_file(tmp_path / "fifo.yaml")
    (tmp_path / "numbers.yaml").write_text("1: 2\n")
    with pytest.raises(ConfigError, match=r"numbers\.yaml: 1 is not a key; keys are strings"):
        load_yaml(tmp_path / "numbers.yaml")


@pytest.mark.parametrize("name", ["", "/", "a\0b", "n" * 5000, "x\ud800"])
def test_names_that_no_file_can_have_do_not_exist(name: str) -> None:
    with pytest.raises(ConfigError, match="does not exist; known are") as caught:
        load_model_config(name)
    assert len(str(caught.value)) < 500


def test_yaml_means_what_people_mean(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "lr: 1e-4\ncountry: no\nflag: True\ntime: 12:30\nday: 2024-01-01\noctal: 010\n"
        "base: &b {x: 1}\nmore: {<<: *b, y: .5}\nnothing: ~\n"
    )
    assert load_yaml(path) == {
        "lr": 1e-4,
        "country": "no",
        "flag": True,
        "time": "12:30",
        "day": "2024-01-01",
        "octal": 10,
        "base": {"x": 1},
        "more": {"x": 1, "y": 0.5},
        "nothing": None,
    }
