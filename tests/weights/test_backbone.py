"""Files of ImageNet backbones: recognised by their tensors, under the names of four families."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace

import pytest
import torch

from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.nn.backbones import build_backbone
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.backbone import (
    Backbone,
    covers,
    fitted,
    is_backbone,
    read_backbone,
)
from rtdetr_cli.weights.catalog import BACKBONES
from rtdetr_cli.weights.reader import open_pretrained, open_weights


def bare(config):
    """A tiny backbone's tensors by their official names, as its file holds them."""
    torch.manual_seed(0)
    state = build_backbone(config.backbone).state_dict()
    return {key: torch.rand_like(tensor) for key, tensor in state.items()}


def prefixed(state):
    return {f"backbone.{key}": tensor for key, tensor in state.items()}


def same(found, expected):
    return found.keys() == expected.keys() and all(
        torch.equal(found[k], expected[k]) for k in found
    )


def as_timm(name):
    """D-FINE (src/nn/backbone/hgnetv2.py) and timm name HGNetv2 so."""
    name = re.sub(r"(stem2[ab]\.conv)\.1\.", r"\1.", name)
    name = name.replace("aggregation_squeeze_conv", "aggregation.0")
    return name.replace("aggregation_excitation_conv", "aggregation.1")


def as_paddle(name, kit):
    """Paddle's names, which are those of its detectors without the first word."""
    return kit.paddle_name(f"backbone.{name}").removeprefix("backbone.")


@pytest.mark.parametrize(
    ("detector", "architecture", "tensors", "values"),
    [
        # Tensors and values of the authors' R18 file as a user has recorded them; those of L are
        # the parameters of KerasHub's hgnetv2_b4 with its statistics.
        ("official_r18vd", "rtdetr-r18", 115, 11_209_824),
        ("official_hgnetv2_l", "rtdetr-l", 400, 13_599_072),
        ("official_r50vd", "rtdetr-r50", 275, None),
    ],
)
def test_official_names_give_the_architecture(detector, architecture, tensors, values, kit):
    state = {
        key.removeprefix("backbone."): tensor
        for key, tensor in kit.meta_state(kit.shapes[detector]).items()
        if key.startswith("backbone.")
    }
    assert is_backbone(state)
    found = read_backbone(state, "x.pth")
    assert found.config == load_model_config(architecture).backbone
    assert found.notes == ()
    assert len(found.weights) == tensors
    size = sum(tensor.numel() for tensor in found.weights.values())
    assert values is None or size == values
    published = next(one for one in BACKBONES.values() if one.architecture == architecture)
    assert published.megabytes == round(4 * size / 1e6, 1)


@pytest.mark.parametrize("wrapping", ["plain", "state_dict", "parallel", "prefixed", "counted"])
def test_a_file_opens_however_it_is_wrapped(wrapping, tiny_config, tmp_path):
    state = bare(tiny_config)
    file = {
        "plain": state,
        "state_dict": {"state_dict": state, "epoch": 3},
        "parallel": {"model": {f"module.{key}": tensor for key, tensor in state.items()}},
        "prefixed": prefixed(state),
        "counted": state | {"stem.stem1.bn.num_batches_tracked": torch.tensor(9)},
    }[wrapping]
    torch.save(file, tmp_path / "x.pth")
    found = open_pretrained(tmp_path / "x.pth")
    assert isinstance(found, Backbone)
    assert found.config == tiny_config.backbone
    assert same(found.weights, prefixed(state))


def test_presnets_open_too(tiny_presnet_config, tmp_path):
    state = bare(tiny_presnet_config)
    torch.save({key: tensor.half() for key, tensor in state.items()}, tmp_path / "x.pth")
    found = open_pretrained(tmp_path / "x.pth")
    assert found.config == tiny_presnet_config.backbone
    assert same(found.weights, {k: t.half().float() for k, t in prefixed(state).items()})


def test_names_of_dfine_and_timm_are_read_and_the_head_is_reported(tiny_config, tmp_path):
    state = bare(tiny_config)
    head = {
        "head.last_conv.0.weight": torch.ones(2, 3, 1, 1),
        "head.fc.weight": torch.ones(4, 2),
        "fc.bias": torch.ones(4),
        "last_conv.weight": torch.ones(2, 3, 1, 1),
    }
    torch.save({as_timm(key): t for key, t in state.items()} | head, tmp_path / "x.pth")
    found = open_pretrained(tmp_path / "x.pth")
    assert same(found.weights, prefixed(state))
    assert found.notes == (
        "4 classifier tensors dropped: head.last_conv.0.weight, head.fc.weight, fc.bias, ...",
    )


def test_hgnetv2_of_paddle_opens(tiny_config, kit, tmp_path):
    check_paddle(tiny_config, kit, tmp_path)


def test_resnet_of_paddle_opens(tiny_presnet_config, kit, tmp_path):
    check_paddle(tiny_presnet_config, kit, tmp_path)


def check_paddle(config, kit, folder):
    state = bare(config)
    arrays = {as_paddle(key, kit): tensor.numpy() for key, tensor in state.items()}
    assert any(key.endswith("._mean") for key in arrays)
    path = folder / "x.pdparams"
    path.write_bytes(pickle.dumps(arrays, 4))
    found = open_pretrained(path)
    assert found.config == config.backbone
    assert same(found.weights, prefixed(state))


def test_affine_blocks_are_folded_where_the_architecture_has_none(tiny_config):
    blocks = {"stem.stem4.lab.scale": torch.tensor([2.0]), "stem.stem4.lab.bias": torch.zeros(1)}
    state = bare(tiny_config)
    found = read_backbone(state | blocks, "B0.pth")
    assert found.config == replace(tiny_config.backbone, learnable_affine=True)
    folded = fitted(found, tiny_config.backbone)
    assert folded.notes == (
        "affine blocks folded into the convolutions, exact except at the border",
    )
    assert folded.weights.keys() == prefixed(state).keys()
    behind = "stages.0.blocks.0.layers.0.conv.weight"
    assert torch.equal(folded.weights[f"backbone.{behind}"], 2 * state[behind])
    damaged = blocks | {"stem.stem4.lab.scale": torch.ones(2)}
    with pytest.raises(WeightsError, match=r"^B0\.pth is not a supported backbone: "):
        fitted(read_backbone(state | damaged, "B0.pth"), tiny_config.backbone)


def test_a_backbone_with_affine_blocks_starts_dfine_as_it_is(tiny_config):
    """Pico has the first three stages of B0, and D-FINE-N returns two of its maps."""
    own = replace(tiny_config, backbone=replace(tiny_config.backbone, learnable_affine=True))
    found = read_backbone(bare(own), "B0.pth")
    for stages, num_maps in ((4, 2), (3, 1)):
        target = replace(own.backbone, stages=own.backbone.stages[:stages], num_maps=num_maps)
        assert covers(found.config, target)
        weights = fitted(found, target).weights
        assert {k: t.shape for k, t in weights.items()} == {
            k: t.shape for k, t in prefixed(build_backbone(target).state_dict()).items()
        }
        assert all(torch.equal(tensor, found.weights[key]) for key, tensor in weights.items())
    other = replace(own.backbone, stem=(8, 8))
    assert not covers(found.config, other)
    assert fitted(found, other) is found


def test_an_incomplete_backbone_is_reported(tiny_config):
    state = {key: t for key, t in bare(tiny_config).items() if not key.startswith("stages.2.")}
    with pytest.raises(
        WeightsError, match=r"^x\.pth is not a complete backbone: backbone\.stages\.2"
    ):
        read_backbone(state, "x.pth")


@pytest.mark.parametrize(
    "key", ["stem.stem4.conv.weight", "stages.0.blocks.0.layers.0.conv.weight"]
)
def test_invalid_shapes_are_a_one_line_error(key, tiny_config):
    state = bare(tiny_config) | {key: torch.tensor(1.0)}
    with pytest.raises(WeightsError, match=r"^x\.pth is not a supported backbone: "):
        read_backbone(state, "x.pth")


def test_a_detector_is_not_opened_as_a_backbone_nor_the_reverse(tiny_config, tmp_path):
    network = RTDETRNetwork(tiny_config, 2)
    assert not is_backbone(network.state_dict())
    assert not is_backbone({"conv1.weight": torch.ones(1), "layer1.0.conv1.weight": torch.ones(1)})
    torch.save(bare(tiny_config), tmp_path / "imagenet.pth")
    with pytest.raises(WeightsError) as caught:
        open_weights(tmp_path / "imagenet.pth")
    assert str(caught.value) == (
        "imagenet.pth is only a backbone, not a detector; train one from it: "
        "rtdetr train model=ARCHITECTURE.yaml pretrained=imagenet.pth"
    )
    torch.save(bare(load_model_config("rtdetr-n")), tmp_path / "b0.pth")
    with pytest.raises(WeightsError, match=r"train model=rtdetr-n\.yaml pretrained=b0\.pth$"):
        open_weights(tmp_path / "b0.pth")
