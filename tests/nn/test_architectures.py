"""The shipped architectures against the official implementations: names, shapes, sizes.

`fixtures/official_v2_states.json.xz` holds name and shape of every tensor of the official v2
networks for 80 classes (lyuwenyu/RT-DETR at 068dfde), less what can be derived:
`num_batches_tracked`, anchors, `valid_mask`, `num_points_scale`. R34, R50-m and R101 exist there
with v1 names and are listed with the four v1 prefixes renamed. Counts and GFLOPs were measured on
the same networks.
"""

from __future__ import annotations

import json
import lzma
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.config.scale import least_amount
from rtdetr_cli.core.files import asset_dir
from rtdetr_cli.evaluation.speed import count_flops
from rtdetr_cli.nn.backbones.hgnetv2 import LearnableAffine
from rtdetr_cli.nn.rtdetr import RTDETRNetwork, fuse

# name: (trainable parameters, GFLOPs at 640x640)
OFFICIAL = {
    "rtdetr-r18": (20_184_464, 61.0),
    "rtdetr-r34": (31_441_668, 93.1),
    "rtdetr-r50m": (36_593_772, 100.2),
    "rtdetr-r50": (42_891_372, 137.1),
    "rtdetr-r101": (76_556_268, 259.8),
    "rtdetr-l": (32_925_036, 111.0),
    "rtdetr-x": (67_374_188, 235.2),
    "rtdetr-h": (125_584_348, 490.0),
}
# Frozen norms are buffers in the official code, so its counts leave them out.
FROZEN_NORMS = OFFICIAL.keys() - {"rtdetr-r18", "rtdetr-r34"}
# The official code asks the encoder's box head (256-256-256-4) for all 8400 cells; ours asks for
# the 300 that are chosen.
SPARED_GFLOPS = 2 * (256 * 256 * 2 + 256 * 4) * (8400 - 300) / 1e9


@cache
def build(name: str) -> RTDETRNetwork:
    with torch.device("meta"):
        return RTDETRNetwork(load_model_config(name), num_classes=80).eval()


@cache
def official_states() -> dict[str, dict[str, list[int]]]:
    path = Path(__file__).parent / "fixtures" / "official_v2_states.json.xz"
    return json.loads(lzma.decompress(path.read_bytes()))


@pytest.mark.parametrize("name", OFFICIAL)
def test_state_names_and_shapes_are_the_official_v2_ones(name):
    state = {key: list(tensor.shape) for key, tensor in build(name).state_dict().items()}
    assert state == official_states()[name]


@pytest.mark.parametrize("name", OFFICIAL)
def test_trainable_parameters_are_the_official_number(name):
    network = build(name)
    counted = sum(parameter.numel() for parameter in network.parameters())
    if name in FROZEN_NORMS:
        assert network.config.recipe.freeze_backbone_norm
        counted -= sum(
            parameter.numel()
            for module in network.backbone.modules()
            if isinstance(module, nn.BatchNorm2d)
            for parameter in module.parameters()
        )
    assert counted == OFFICIAL[name][0]


@pytest.mark.parametrize("name", OFFICIAL)
def test_flops_are_the_official_ones_less_the_spared_boxes(name):
    counted = count_flops(build(name), (640, 640)) / 1e9
    assert counted + SPARED_GFLOPS == pytest.approx(OFFICIAL[name][1], rel=0.01)


def test_the_smallest_architecture_keeps_its_size():
    network = build("rtdetr-n")
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_621_840
    assert count_flops(network, (640, 640)) / 1e9 == pytest.approx(13.8, rel=0.01)


def test_r50m_trains_six_decoder_layers_and_infers_with_three():
    decoder = build("rtdetr-r50m").decoder
    assert len(decoder.decoder.layers) == 6
    assert decoder.eval_layers == 3


# name: (size, parameters in training, deployed, GFLOPs deployed), measured on networks built from
# the official configs of D-FINE at 4a1f73a and DEIMv2 at 0fff8d4
DISTRIBUTIONS = {
    "dfine-n": (640, 3_782_693, 3_753_799, 7.31),
    "dfine-s": (640, 10_321_877, 10_237_491, 25.50),
    "dfine-m": (640, 19_590_064, 19_248_189, 57.03),
    "dfine-l": (640, 31_244_152, 30_724_195, 91.60),
    "dfine-x": (640, 62_621_560, 61_601_635, 203.08),
    "deimv2-atto": (320, 508_985, 494_159, 0.76),
    "deimv2-femto": (416, 983_945, 962_311, 1.67),
    "deimv2-pico": (640, 1_539_539, 1_514_285, 5.15),
    "deimv2-n": (640, 3_600_421, 3_571_527, 7.02),
}
CONSTANTS = 2
"""`up` and `reg_scale`, which the official code counts as parameters."""


def count(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def norms(*modules: nn.Module) -> list[nn.BatchNorm2d]:
    inner = (one for module in modules for one in module.modules())
    return [one for one in inner if isinstance(one, nn.BatchNorm2d)]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_networks_with_distributions_have_the_official_number_of_parameters(name):
    network = build(name)
    counted = count(network) + CONSTANTS
    if network.config.recipe.freeze_backbone_norm:
        counted -= count(*norms(network.backbone))
    assert counted == DISTRIBUTIONS[name][1]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_fused_network_has_the_official_number_but_for_heads_and_norms(name):
    """The official one lacks the heads of unused layers, keeps affine blocks and folds fewer norms.

    Those of the backbone, of the projections into encoder and decoder, and of the lite encoder's
    pools stay, two tensors each for our one bias; frozen ones are buffers there.
    """
    network = build(name)
    affine = [one for one in network.modules() if isinstance(one, LearnableAffine)]
    unused = [*network.decoder.dec_score_head[:-1], *network.decoder.decoder.lqe_layers[:-1]]
    kept = norms(network.encoder.input_proj, network.decoder.input_proj)
    if hasattr(network.encoder, "down_sample1"):
        kept += norms(network.encoder.down_sample1, network.encoder.down_sample2)
    sign = -1 if network.config.recipe.freeze_backbone_norm else 1
    counted = count(fuse(network)) + CONSTANTS + count(*affine) - count(*unused)
    counted += sum(norm.num_features for norm in kept)
    counted += sign * sum(norm.num_features for norm in norms(network.backbone))
    assert counted == DISTRIBUTIONS[name][2]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_fused_network_has_the_official_flops(name):
    size, *_, gflops = DISTRIBUTIONS[name]
    assert count_flops(fuse(build(name)), (size, size)) / 1e9 == pytest.approx(gflops, rel=0.01)


@pytest.mark.parametrize("name", sorted(path.stem for path in asset_dir("models").glob("*.yaml")))
def test_the_size_that_is_estimated_before_building_is_a_little_less_than_the_real_one(name):
    """A file with fewer weights than the estimate is refused, so it must not exceed any network."""
    network = build(name)
    tensors, values = least_amount(network.config, 80)
    weights = [one for one in network.parameters() if one.dim() >= 2]
    assert len(weights) * 0.6 < tensors <= len(weights)
    assert count(network) * 0.9 < values <= count(network)


def test_the_page_of_architectures_has_every_one_with_its_size():
    page = Path(__file__).parents[2] / "docs" / "architectures.md"
    rows = [line.split(" | ") for line in page.read_text().splitlines() if line.startswith("| `")]
    listed = {row[0].strip("| `"): row for row in rows}
    assert listed.keys() == {path.stem for path in asset_dir("models").glob("*.yaml")}
    for name, row in listed.items():
        assert f"{count(build(name)) / 1e6:.2f}" == row[2], name
        if name in DISTRIBUTIONS:
            size, *_, gflops = DISTRIBUTIONS[name]
            assert (int(row[1]), float(row[3])) == (size, pytest.approx(gflops, abs=0.011))
