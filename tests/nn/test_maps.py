"""The maps of D-FINE's and DEIMv2's backbones and encoders against the reference networks.

The parity kit (../shared/parity) fills each reference network from the names of its tensors, runs
it in float64 and stores the mean of each channel of the maps and samples of the pyramid. Parts of
these are in fixtures/dfine_maps.npz: every 16th mean, every 4th channel and 2nd row and column of
the samples. RT-DETRv4 has the maps of D-FINE. tests/weights/test_parity.py compares outputs.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.nn.backbones import build_backbone
from rtdetr_cli.nn.rtdetr import build_encoder, fuse

FIXTURE = Path(__file__).parent / "fixtures" / "dfine_maps.npz"
FILES = {  # file of the kit: architecture
    "deimv2_atto_320x320": "deimv2-atto",
    "dfine_m_320x320": "dfine-m",
    "dfine_s_384x640": "dfine-s",
    "dfine_n_640x640": "dfine-n",
    "deimv2_n_640x640": "deimv2-n",
    "dfine_l_640x640": "dfine-l",
}
SLOW = {"dfine_m_320x320", "dfine_l_640x640"}


class Maps(nn.Module):
    """A network without its decoder, under the names of the whole."""

    def __init__(self, architecture):
        super().__init__()
        config = load_model_config(architecture)
        self.backbone = build_backbone(config.backbone)
        self.encoder = build_encoder(config.encoder, self.backbone.out_channels)

    def forward(self, images):
        maps = self.backbone(images)
        return maps, self.encoder(maps)


def official(name):
    """The name of a tensor in the official files, which differs in two places."""
    name = name.replace(".aggregation_squeeze_conv.", ".aggregation.0.")
    name = name.replace(".aggregation_excitation_conv.", ".aggregation.1.")
    return re.sub(r"(stem2[ab]\.conv)\.1\.", r"\1.", name)


def sampled(maps, pyramid):
    """What the fixture keeps of them."""
    found = {f"backbone{level}_mean": x.mean((0, 2, 3))[::16] for level, x in enumerate(maps)}
    for level, x in enumerate(pyramid):
        found[f"pyramid{level}_mean"] = x.mean((0, 2, 3))[::16]
        found[f"pyramid{level}_sample"] = x[0, ::16, ::5, ::7][::4, ::2, ::2]
    return found


def random_maps(architecture):
    """In float64 and eval mode, every norm and affine block away from its starting values."""
    torch.manual_seed(0)
    network = Maps(architecture).double().eval()
    for name, tensor in network.state_dict().items():
        if tensor.dim() == 1:
            tensor.uniform_(0.8, 1.2) if "weight" in name or "var" in name else tensor.normal_(
                0, 0.1
            )
    return network


@pytest.mark.parametrize("size_hw", [(32, 32), (64, 320), (96, 64)])
@pytest.mark.parametrize("architecture", ["deimv2-atto", "deimv2-n", "dfine-s"])
def test_fused_maps_are_the_same_at_any_size(architecture, size_hw):
    network = random_maps(architecture)
    images = torch.rand(2, 3, *size_hw, dtype=torch.float64)
    with torch.inference_mode():
        maps, pyramid = network(images)
        fused = fuse(network)(images)
    strides = load_model_config(architecture).strides
    height, width = size_hw
    assert [tuple(x.shape[2:]) for x in pyramid] == [(height // s, width // s) for s in strides]
    for level, (new, old) in enumerate(zip([*fused[0], *fused[1]], [*maps, *pyramid], strict=True)):
        torch.testing.assert_close(new, old, rtol=0, atol=1e-9, msg=str(level))


def compare(network, file, kit):
    expected = {
        name.partition("/")[2]: torch.from_numpy(values)
        for name, values in np.load(FIXTURE).items()
        if name.startswith(f"{file}/")
    }
    with torch.inference_mode():
        found = sampled(*network(kit["image"](*map(int, file.rpartition("_")[2].split("x")))))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "file", [pytest.param(file, marks=pytest.mark.slow) if file in SLOW else file for file in FILES]
)
def test_maps_equal_the_reference(file, parity_kit):
    network = Maps(FILES[file]).double().eval()
    network.load_state_dict(
        {
            name: parity_kit["fill"](official(name), tensor.shape)
            for name, tensor in network.state_dict().items()
        }
    )
    compare(network, file, parity_kit)


def test_maps_of_trained_weights_equal_the_reference(parity_kit, shared_data):
    trained = np.load(shared_data / "weights" / "deimv2_atto_coco_state.npz")
    network = Maps("deimv2-atto").double().eval()
    network.load_state_dict(
        {name: torch.from_numpy(trained[official(name)]) for name in network.state_dict()}
    )
    compare(network, "deimv2_atto_trained_320x320", parity_kit)


@pytest.mark.parametrize("architecture", ["deimv2-atto", "dfine-n"])
def test_every_parameter_has_a_finite_gradient_under_autocast_in_channels_last(architecture):
    network = random_maps(architecture).float().train().to(memory_format=torch.channels_last)
    images = torch.rand(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, pyramid = network(images)
    sum(x.float().square().mean() for x in pyramid).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch warns of its own tracing
def test_one_compiled_graph_of_atto_serves_all_sizes():
    """As compile=true does it with multi-scale training; aot_eager needs no C++ compiler."""
    torch.compiler.reset()
    network = random_maps("deimv2-atto")
    parts = [network.backbone, network.encoder]
    for size_hw in ((64, 96), (96, 64), (160, 160)):
        images = torch.rand(2, 3, *size_hw, dtype=torch.float64)
        expected = network(images)[1]
        x = images
        for part in parts:
            x = torch.compile(part, backend="aot_eager", dynamic=True)(x)
        for found, wanted in zip(x, expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
