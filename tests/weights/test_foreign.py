"""Names of other families against networks of ours.

`kit.shapes` holds names and shapes that the families' own implementations have for 80 classes.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.architecture import Facts
from rtdetr_cli.weights.checkpoint import check_fit
from rtdetr_cli.weights.foreign import points_per_level, read_foreign
from rtdetr_cli.weights.paddle import number_blocks
from rtdetr_cli.weights.ultralytics import layer_parts

FAMILIES = {
    "official_r18vd": ("rtdetr-r18", "official v1 names", 1e-5),
    "official_r50vd_m": ("rtdetr-r50m", "official v1 names", 1e-5),
    "official_v2_r18vd": ("rtdetr-r18", "official v2 names", 1e-5),
    "hf_rtdetr_r18_disk": ("rtdetr-r18", "Hugging Face names", 1e-5),
    "hf_rtdetr_v2_r50_disk": ("rtdetr-r50", "Hugging Face names", 1e-5),
    "ultralytics_l": ("rtdetr-l", "layer-numbered (Ultralytics) names", 1e-3),
    "ultralytics_x": ("rtdetr-x", "layer-numbered (Ultralytics) names", 1e-3),
}

# key-maps 5.1: the place of some parts in L and X
LAYERS = {
    "backbone.stem": (0, 0),
    "backbone.stages.2.blocks.2": (7, 8),
    "backbone.stages.3.downsample": (8, 11),
    "encoder.input_proj.2": (10, 14),
    "encoder.encoder.0.layers.0": (11, 15),
    "encoder.lateral_convs.0": (12, 16),
    "encoder.input_proj.1": (14, 18),
    "encoder.fpn_blocks.0": (16, 20),
    "encoder.lateral_convs.1": (17, 21),
    "encoder.input_proj.0": (19, 23),
    "encoder.fpn_blocks.1": (21, 25),
    "encoder.downsample_convs.0": (22, 26),
    "encoder.pan_blocks.0": (24, 28),
    "encoder.downsample_convs.1": (25, 29),
    "encoder.pan_blocks.1": (27, 31),
    "decoder": (28, 32),
}


def fits(checkpoint):
    with torch.device("meta"):
        network = RTDETRNetwork(checkpoint.config, len(checkpoint.names))
    check_fit(checkpoint.weights, network.state_dict(), "the file")
    return True


@pytest.mark.parametrize("file", FAMILIES)
def test_every_family_is_recognised_and_fits_its_architecture(file, kit):
    name, origin, norm_eps = FAMILIES[file]
    checkpoint = read_foreign(kit.meta_state(kit.shapes[file]), file)
    shipped = load_model_config(name)
    is_hugging_face = file.startswith("hf")
    anchors = "float32" if file.startswith("official") else "float64"
    assert checkpoint.config == replace(
        shipped,
        norm_eps=norm_eps,
        encoder=replace(
            shipped.encoder, position_precision="float64" if is_hugging_face else "float32"
        ),
        decoder=replace(shipped.decoder, anchor_precision=anchors),
    )
    assert checkpoint.origin == origin
    assert checkpoint.names[79] == "toothbrush"
    assert checkpoint.preprocessing.size_hw == (640, 640)
    assert checkpoint.preprocessing.antialias is not file.startswith("ultralytics")
    assert fits(checkpoint)


# file -> its name, architecture, side of its images, and activation of its decoder
REFINED = {
    "dfine_n": ("dfine_n_coco.pth", "dfine-n", 640, "relu"),
    "dfine_s": ("D-FINE_s.pth", "dfine-s", 640, "relu"),
    "dfine_m": ("dfine_m_obj2coco.pth", "dfine-m", 640, "relu"),
    "dfine_l": ("dfine_l_coco.pth", "dfine-l", 640, "relu"),
    "dfine_x": ("dfine_x_coco.pth", "dfine-x", 640, "relu"),
    "rtdetrv4_s": ("best_stg2.pth", "rtdetrv4-s", 640, "silu"),
    "deim_rtdetrv2_r18": ("best_stg2.pth", "deim-rtdetrv2-r18", 640, "silu"),
    "deimv2_atto": ("model.safetensors", "deimv2-atto", 320, "silu"),
    "deimv2_femto": ("model.safetensors", "deimv2-femto", 416, "silu"),
    "deimv2_pico": ("model.safetensors", "deimv2-pico", 640, "silu"),
    "deimv2_n": ("deimv2_n.pth", "deimv2-n", 640, "silu"),
}


@pytest.mark.parametrize("file", REFINED)
def test_dfine_deim_and_deimv2_are_read_from_their_shapes(file, kit):
    origin, name, side, activation = REFINED[file]
    title = {"dfine": "D-FINE", "rtdet": "RT-DETRv4", "deimv": "DEIMv2", "deim_": "v2"}[file[:5]]
    checkpoint = read_foreign(kit.meta_state(kit.shapes[file]), origin)
    shipped = name.replace("rtdetrv4", "dfine").replace("deim-rtdetrv2", "rtdetr")
    expected = load_model_config(shipped)
    decoder = replace(expected.decoder, activation=activation)
    if name == "deim-rtdetrv2-r18":
        decoder = replace(decoder, position_layers=3)
    assert checkpoint.config == replace(expected, name=name, decoder=decoder)
    assert checkpoint.preprocessing == Preprocessing((side, side), antialias=True)
    assert checkpoint.origin == f"official {title} names"
    assert fits(checkpoint)


@pytest.mark.parametrize("size", ["n", "s", "m"])
def test_dfine_of_transformers_is_read_from_its_shapes(size, kit):
    state = kit.meta_state(kit.shapes[f"hf_d_fine_{size}_disk"])
    found = read_foreign(state, "model.safetensors", Facts(families=("dfine",)))
    official = read_foreign(kit.meta_state(kit.shapes[f"dfine_{size}"]), "dfine.pth")
    assert found.config.decoder == replace(official.config.decoder, anchor_precision="float64")
    assert {k: t.shape for k, t in found.weights.items()} == {
        k: t.shape for k, t in official.weights.items()
    }


def test_the_scale_of_the_tensor_is_used_where_config_json_has_another(kit):
    state = kit.meta_state(kit.shapes["dfine_x"])
    found = read_foreign(state, "dfine_x.pth", Facts(reg_scale=4.0))
    assert found.config.decoder.reg_scale == 8
    assert "reg_scale 8, as the tensor says; config.json: 4" in found.notes


def test_heads_for_objects365_have_a_row_per_id(kit):
    state = kit.meta_state(kit.shapes["dfine_s"])
    for key, tensor in state.items():
        if tensor.shape[:1] in {(80,), (81,)}:
            state[key] = torch.empty(tensor.shape[0] + 286, *tensor.shape[1:], device="meta")
    names = read_foreign(state, "dfine_s_obj365.pth").names
    assert (len(names), names[0], names[1], names[365]) == (366, "unused", "Person", "Table Tennis")


def test_class_names_of_another_number_are_rejected(kit):
    state = kit.meta_state(kit.shapes["official_r18vd"])
    with pytest.raises(WeightsError, match=r"x.pt has 80 classes, but 2 class names"):
        read_foreign(state, "x.pt", Facts(names={0: "a", 1: "b"}))


def test_r50m_uses_three_of_its_six_layers_at_inference(kit):
    decoder = read_foreign(kit.meta_state(kit.shapes["official_r50vd_m"]), "x").config.decoder
    assert (decoder.num_layers, decoder.eval_layers) == (6, 3)


def test_layer_numbers_follow_from_the_depth(kit):
    for column, file in enumerate(("ultralytics_l", "ultralytics_x")):
        parts = layer_parts(kit.meta_state(kit.shapes[file]), file)
        for part, numbers in LAYERS.items():
            assert parts[numbers[column]] == part


def test_in_memory_names_of_transformers_5_are_read(kit):
    state = kit.meta_state(kit.shapes["hf_rtdetr_v2_r50_disk"])
    in_memory = {
        key.replace("model.encoder.encoder.", "model.encoder.aifi.")
        .replace("self_attn.out_proj", "self_attn.o_proj")
        .replace(".fc1.", ".mlp.fc1.")
        .replace(".fc2.", ".mlp.fc2."): tensor
        for key, tensor in state.items()
    }
    in_memory["class_embed.0.weight"] = in_memory["model.decoder.class_embed.0.weight"]
    in_memory["bbox_embed.0.layers.0.bias"] = state["model.decoder.bbox_embed.0.layers.0.bias"]
    assert set(read_foreign(in_memory, "x").weights) == set(read_foreign(state, "x").weights)


def test_query_key_and_value_are_stacked_in_this_order(kit):
    state = kit.meta_state(kit.shapes["hf_rtdetr_r18_disk"])
    prefix = "model.decoder.layers.1.self_attn."
    for value, letter in enumerate("qkv"):
        state[f"{prefix}{letter}_proj.bias"] = torch.full((256,), float(value))
    bias = read_foreign(state, "x").weights["decoder.decoder.layers.1.self_attn.in_proj_bias"]
    assert bias.tolist() == [0.0] * 256 + [1.0] * 256 + [2.0] * 256


def test_a_missing_padding_row_is_appended(kit):
    shapes = kit.shapes["ultralytics_l"]
    state = kit.meta_state(shapes)
    state["model.28.denoising_class_embed.weight"] = torch.ones(80, 256)
    rows = read_foreign(state, "x").weights["decoder.denoising_class_embed.weight"]
    assert rows.shape == (81, 256)
    assert rows[:80].eq(1).all()
    assert rows[80].eq(0).all()


def test_a_data_parallel_prefix_is_stripped(kit):
    state = kit.meta_state(kit.shapes["official_r18vd"])
    wrapped = {f"module.{key}": tensor for key, tensor in state.items()}
    assert set(read_foreign(wrapped, "x").weights) == set(read_foreign(state, "x").weights)


@pytest.mark.parametrize("wrapper", ["model", "_orig_mod", "ema.module", "module._orig_mod"])
def test_names_of_modules_around_the_network_are_left_out(wrapper, kit):
    state = kit.meta_state(kit.shapes["deimv2_atto"])
    wrapped = {f"{wrapper}.{key}": tensor for key, tensor in state.items()}
    found = read_foreign(wrapped, "x")
    assert found.weights.keys() == read_foreign(state, "x").weights.keys()
    assert f"weights taken from {wrapper.removeprefix('module.')}" in found.notes


def test_averaged_weights_are_taken_before_raw_ones(kit):
    state = kit.meta_state(kit.shapes["official_v2_r18vd"])
    both = {f"{wrapper}.{key}": t for wrapper in ("a", "model_ema") for key, t in state.items()}
    both["criterion.weight"] = torch.zeros(1)
    found = read_foreign(both, "x")
    assert found.weights.keys() == read_foreign(state, "x").weights.keys()
    assert found.notes[0] == "weights taken from model_ema"


def test_a_file_without_heads_is_no_question_of_its_family(kit):
    state = kit.meta_state(kit.shapes["dfine_n"])
    part = {key: tensor for key, tensor in state.items() if not key.startswith("decoder.")}
    with pytest.raises(WeightsError, match=r"dfine_n.pth has no class heads; is it only a back"):
        read_foreign(part, "dfine_n.pth")


def test_points_per_level_are_read_from_their_scales(edited_config):
    points = (3, 6, 3)
    scales = torch.tensor([1 / n for n in points for _ in range(n)])
    state = {"decoder.decoder.layers.0.cross_attn.num_points_scale": scales}
    assert points_per_level(state) == points
    config = replace(edited_config, decoder=replace(edited_config.decoder, num_points=points))
    state |= RTDETRNetwork(config, 2).state_dict()
    assert read_foreign(state, "x").config == config


def test_distillation_tensors_of_rtdetrv4_are_dropped_with_a_note(kit):
    state = kit.meta_state(kit.shapes["official_v2_r18vd"])
    plain = read_foreign(state, "x")
    state["encoder.feature_projector.0.weight"] = torch.zeros(768, 256)
    taught = read_foreign(state, "x")
    assert set(taught.weights) == set(plain.weights)
    assert set(taught.notes) - set(plain.notes) == {
        "1 distillation tensors dropped: encoder.feature_projector.0.weight..."
    }


@pytest.mark.parametrize(
    "file", ["official_r18vd", "official_r50vd_m", "official_v2_r18vd", "official_hgnetv2_l"]
)
def test_paddle_names_cover_every_tensor(file, kit):
    expected = read_foreign(kit.meta_state(kit.shapes[file]), file)
    arrays = {
        kit.paddle_name(key): tensor.T if tensor.ndim == 2 and "denoising" not in key else tensor
        for key, tensor in expected.weights.items()
    }
    found = read_foreign(arrays, file)
    assert found.origin == "Paddle names"
    assert found.config == expected.config
    assert {k: t.shape for k, t in found.weights.items()} == {
        k: t.shape for k, t in expected.weights.items()
    }


def test_blocks_of_r101_are_numbered_after_their_letter():
    names = ["backbone.res4.res4a.x", "backbone.res4.res4b1.x", "backbone.res4.res4b22.x"]
    assert list(number_blocks(dict.fromkeys(names, torch.zeros(1)))) == [
        "backbone.res_layers.2.blocks.0.x",
        "backbone.res_layers.2.blocks.1.x",
        "backbone.res_layers.2.blocks.22.x",
    ]


def without(state, part):
    return {key: tensor for key, tensor in state.items() if part not in key}


def with_extra(*names):
    return lambda state: state | {name: torch.zeros(1) for name in names}


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        ("ultralytics_resnet50", dict, "the ResNet of Ultralytics, a different network from"),
        (
            "ultralytics_l",
            lambda s: without(s, "model.21."),
            "not an RT-DETR with an HGNetv2 backbone",
        ),
        ("ultralytics_l", lambda s: s | {"other": s["model.12.bn.bias"]}, "has a tensor other"),
        ("official_r18vd", lambda s: without(s, "dec_score_head"), "has no class heads"),
        ("official_r18vd", lambda s: without(s, "enc_score_head"), "has no class heads"),
        ("official_r18vd", lambda s: without(s, "res_layers.2"), "is missing"),
        ("official_r18vd", lambda s: without(s, "encoder.input_proj"), "of a known family"),
        ("official_r18vd", lambda _: {"neck.a": torch.zeros(1)}, "has no class heads"),
        ("official_r18vd", lambda _: {"linear_0.w_0_moment1_0": torch.zeros(1)}, "optimizer"),
        (
            "official_v2_r18vd",
            with_extra("decoder.up", "decoder.reg_scale", "decoder.pre_bbox_head.layers.0.bias"),
            "must be 0.5",
        ),
        ("hf_deimv2_n_disk", dict, "DEIMv2 as transformers has it, which is another network"),
        ("deimv2_n", with_extra("backbone.dinov3.cls_token"), "DEIMv2 on DINOv3"),
        (
            "dfine_s",
            lambda s: without(s, "reg_scale"),
            "one value of decoder.reg_scale, found none",
        ),
        (
            "dfine_s",
            lambda s: s | {"decoder.decoder.reg_scale": torch.tensor([8])},
            "one value of decoder.reg_scale, found 4 and 8",
        ),
        ("dfine_s", lambda s: s | {"decoder.up": torch.ones(1)}, "decoder.up, found 0.5 and 1"),
        ("dfine_s", dict, "fits D-FINE, .* say which with family=dfine, family=deim or"),
        ("official_v2_r18vd", with_extra("decoder.tgt_embed.weight"), "learned queries"),
        ("official_r18vd", lambda _: {}, "holds 0 tensors"),
    ],
)
def test_other_networks_are_rejected_with_the_reason(file, change, sentence, kit):
    with pytest.raises(WeightsError, match=sentence) as caught:
        read_foreign(change(kit.meta_state(kit.shapes[file])), "x.pt")
    assert str(caught.value).startswith("x.pt ")


def test_class_agnostic_query_selection_is_rejected(kit):
    state = kit.meta_state(kit.shapes["official_v2_r18vd"])
    state["decoder.enc_score_head.weight"] = torch.empty(1, 256, device="meta")
    with pytest.raises(WeightsError, match="class-agnostically"):
        read_foreign(state, "x.pt")
