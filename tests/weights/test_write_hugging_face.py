"""What goes out for transformers; benchmarks/check_weights_peers.py shows that it loads there."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.config.model import DecoderConfig, Preprocessing, PResNetConfig
from rtdetr_cli.core.coco_classes import COCO_NAMES
from rtdetr_cli.core.errors import StorageError, WeightsError
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint
from rtdetr_cli.weights.foreign import read_foreign
from rtdetr_cli.weights.reader import open_weights
from rtdetr_cli.weights.write_hugging_face import (
    hugging_face_config,
    hugging_face_state,
    without_idle_layers,
    write_hugging_face,
)


def checkpoint_of(config, names=None):
    torch.manual_seed(0)
    names = names or {0: "red", 1: "white"}
    return Checkpoint(config, names, RTDETRNetwork(config, len(names)).state_dict())


def hugging_face_like(config):
    """The same network as far as transformers fixes things."""
    return replace(
        config,
        encoder=replace(config.encoder, num_csp_blocks=3, num_heads=8),
        decoder=replace(config.decoder, num_heads=8, num_queries=30),
        backbone=replace(config.backbone, widths=(8, 12, 16, 20)),
    )


@pytest.mark.parametrize(
    ("architecture", "sampling", "table"),
    [
        ("rtdetr-r18", "bilinear", "hf_rtdetr_r18_disk"),
        ("rtdetr-r50", "discrete", "hf_rtdetr_v2_r50_disk"),
    ],
)
def test_states_have_every_key_and_shape_that_transformers_writes(
    architecture, sampling, table, kit
):
    config = load_model_config(architecture)
    config = replace(config, decoder=replace(config.decoder, sampling=sampling))
    with torch.device("meta"):
        weights = RTDETRNetwork(config, 80).state_dict()
    weights = {key: torch.empty(tensor.shape) for key, tensor in weights.items()}
    state = hugging_face_state(Checkpoint(config, dict(COCO_NAMES), weights))
    assert {key: list(tensor.shape) for key, tensor in state.items()} == kit.shapes[table]


def test_a_folder_comes_back_as_it_went(tiny_presnet_config, tmp_path):
    checkpoint = checkpoint_of(hugging_face_like(tiny_presnet_config))
    checkpoint.licence = "MIT, here"
    write_hugging_face(tmp_path / "out", checkpoint)
    found = open_weights(tmp_path / "out")
    assert found.licence == "MIT, here"
    assert found.weights.keys() == checkpoint.weights.keys()
    assert all(torch.equal(found.weights[key], t) for key, t in checkpoint.weights.items())
    assert found.names == checkpoint.names
    assert found.config.backbone == checkpoint.config.backbone
    assert found.config.decoder.num_queries == 30
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]


def test_decoder_layers_that_never_run_are_left_out(tiny_presnet_config, tmp_path):
    config = hugging_face_like(tiny_presnet_config)
    config = replace(config, decoder=replace(config.decoder, num_layers=3, eval_layers=2))
    checkpoint = checkpoint_of(config)
    write_hugging_face(tmp_path / "out", checkpoint)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["decoder_layers"] == 2
    keys = load_file(tmp_path / "out" / "model.safetensors").keys()
    assert {key.split(".")[3] for key in keys if key.startswith("model.decoder.layers.")} == set(
        "01"
    )
    assert not any("_embed.2." in key for key in keys)
    kept, image = without_idle_layers(checkpoint), torch.rand(1, 3, 64, 64)
    outputs = []
    for one in (checkpoint, kept):
        network = RTDETRNetwork(one.config, 2).eval()
        network.load_state_dict(one.weights)
        outputs.append(network(image).pred_logits)
    assert torch.equal(*outputs)


def test_config_json_says_what_r18_is(tmp_path):
    # the values of PekingU/rtdetr_r18vd where they differ from the class's defaults
    config = load_model_config("rtdetr-r18")
    found = hugging_face_config(Checkpoint(config, dict(COCO_NAMES), {}))
    assert found["model_type"] == "rt_detr"
    assert found["backbone_config"]["depths"] == [2, 2, 2, 2]
    assert found["backbone_config"]["layer_type"] == "basic"
    assert found["backbone_config"]["hidden_sizes"] == [64, 128, 256, 512]
    assert found["encoder_in_channels"] == [128, 256, 512]
    assert found["hidden_expansion"] == 0.5
    assert found["decoder_layers"] == 3
    assert found["id2label"]["79"] == "toothbrush"
    assert found["label2id"]["toothbrush"] == 79


def test_the_v2_class_is_named_where_sampling_is_discrete():
    config = load_model_config("rtdetr-r50")
    config = replace(config, decoder=DecoderConfig(sampling="discrete"))
    found = hugging_face_config(Checkpoint(config, {0: "a"}, {}))
    assert found["architectures"] == ["RTDetrV2ForObjectDetection"]
    assert (found["model_type"], found["decoder_method"]) == ("rt_detr_v2", "discrete")
    assert found["backbone_config"]["model_type"] == "rt_detr_resnet"


def test_the_size_of_images_is_kept(tiny_presnet_config, tmp_path):
    checkpoint = checkpoint_of(hugging_face_like(tiny_presnet_config))
    checkpoint.preprocessing = Preprocessing((320, 416))
    write_hugging_face(tmp_path / "out", checkpoint)
    values = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert values["size"] == {"height": 320, "width": 416}
    assert values["do_normalize"] is False


@pytest.mark.parametrize(
    ("edit", "rule"),
    [
        (lambda c: replace(c, backbone=replace(c.backbone, stem=(4, 6, 8))), "a stem of widths"),
        (
            lambda c: replace(
                c, backbone=PResNetConfig(c.backbone.blocks, False, c.backbone.stem, (8, 8, 9, 9))
            ),
            "basic blocks",
        ),
        (lambda c: replace(c, encoder=replace(c.encoder, num_csp_blocks=2)), "three RepVGG"),
        (lambda c: replace(c, decoder=replace(c.decoder, num_points=(4, 4, 2))), "sampling points"),
    ],
)
def test_networks_that_transformers_cannot_build_are_refused(edit, rule, tiny_presnet_config):
    config = edit(hugging_face_like(tiny_presnet_config))
    with pytest.raises(WeightsError, match=rule):
        hugging_face_config(Checkpoint(config, {0: "a"}, {}))


def test_hgnetv2_is_refused_and_nothing_is_written(tiny_config, tmp_path):
    with pytest.raises(WeightsError, match="tiny cannot be written as hf: transformers has no"):
        write_hugging_face(tmp_path / "out", checkpoint_of(tiny_config))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_is_left_alone(tiny_presnet_config, tmp_path):
    checkpoint = checkpoint_of(hugging_face_like(tiny_presnet_config))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(StorageError, match=r"it holds other files \(thesis\.tex\)"):
        write_hugging_face(tmp_path / "out", checkpoint)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "thesis.tex"]


def test_names_in_memory_and_on_disk_come_back_alike(tiny_presnet_config):
    checkpoint = checkpoint_of(hugging_face_like(tiny_presnet_config))
    found = read_foreign(hugging_face_state(checkpoint), "x")
    assert found.weights.keys() == checkpoint.weights.keys()
