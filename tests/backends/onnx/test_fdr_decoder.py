"""The deployed FDR decoders compute the same as the networks, also through ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rtdetr_cli.backends.onnx.graph import GraphOptions
from rtdetr_cli.backends.onnx.network import DeployedNetwork
from rtdetr_cli.backends.onnx.writer import write_onnx
from rtdetr_cli.config.model import (
    DEIMv2DecoderConfig,
    FDRDecoderConfig,
    LiteEncoderConfig,
    ModelConfig,
    Preprocessing,
)
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

SIZE_HW = (64, 96)
COMMON = {"ffn_dim": 32, "num_layers": 3, "num_queries": 20, "anchor_precision": "float64"}


def make_network(tiny_config: ModelConfig, kind: str) -> RTDETRNetwork:
    """D-FINE on three maps with another width, or DEIMv2-Atto on two; heads of 8 channels."""
    if kind == "dfine":
        decoder = FDRDecoderConfig(**COMMON, hidden_dim=24, num_heads=3, num_points=(2, 3, 1))
        encoder = replace(tiny_config.encoder, fusion="elan", position_precision="float64")
        config = replace(tiny_config, encoder=encoder, decoder=decoder)
    else:
        has_gate = kind == "deimv2-gated"
        decoder = DEIMv2DecoderConfig(
            **COMMON,
            hidden_dim=24,
            num_heads=2,
            num_points=(4, 2),
            gateway=has_gate,
            shared_box_head=not has_gate,
        )
        backbone = replace(
            tiny_config.backbone,
            stages=tiny_config.backbone.stages[:3],
            num_maps=1,
            learnable_affine=True,
        )
        encoder = LiteEncoderConfig(hidden_dim=24, num_csp_blocks=1)
        config = replace(tiny_config, backbone=backbone, encoder=encoder, decoder=decoder)
    torch.manual_seed(0)
    network = RTDETRNetwork(config, 5).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return network


def random_images(size_hw: tuple[int, int] = SIZE_HW) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, *size_hw, generator=draw, dtype=torch.float64)


KINDS = ("dfine", "deimv2", "deimv2-gated")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", ["grid_sample", "gather"])
@pytest.mark.parametrize("size_hw", [SIZE_HW, None])
def test_outputs_equal_the_network(tiny_config, kind, sampler, size_hw):
    network = make_network(tiny_config, kind)
    deployed = DeployedNetwork(network, size_hw, sampler)
    with torch.inference_mode():
        expected, found = network(random_images()), deployed(random_images())
    near = {"atol": 1e-9, "rtol": 1e-9}
    torch.testing.assert_close(found.pred_logits, expected.pred_logits, **near)
    torch.testing.assert_close(found.pred_boxes, expected.pred_boxes, **near)


@pytest.mark.parametrize("kind", KINDS)
def test_speed_settings_are_kept(tiny_config, kind):
    network = make_network(tiny_config, kind)
    network.set_speed(2, 7)
    deployed = DeployedNetwork(network, SIZE_HW)
    assert len(deployed.decoder.layers) == 2
    with torch.inference_mode():
        expected, found = network(random_images()), deployed(random_images())
    torch.testing.assert_close(found.pred_logits, expected.pred_logits, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(found.pred_boxes, expected.pred_boxes, atol=1e-9, rtol=1e-9)


def test_boxes_have_no_negative_size(tiny_config):
    """Corners near the far ends of the bins turn a box inside out."""
    network = make_network(tiny_config, "dfine")
    for head in network.decoder.dec_bbox_head:
        head.layers[-1].bias.data[::33] = 99.0  # the first bin of each edge: -scale
    deployed = DeployedNetwork(network, SIZE_HW)
    with torch.inference_mode():
        assert network(random_images()).pred_boxes[..., 2:].max() < 0
        assert (deployed(random_images()).pred_boxes[..., 2:] == 0).all()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("dfine", GraphOptions(postprocess=False)),
        ("deimv2", GraphOptions(postprocess=False, dynamic=True)),
        ("deimv2-gated", GraphOptions(postprocess=False, opset=19, sampler="gather")),
    ],
)
def test_the_file_equals_the_network(tiny_config, tmp_path, kind, options):
    onnxruntime = pytest.importorskip("onnxruntime")
    import onnx

    network = make_network(tiny_config, kind).float()
    path = tmp_path / "network.onnx"
    write_onnx(path, network, dict(enumerate("abcde")), Preprocessing(SIZE_HW), options)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = random_images((96, 64) if options.dynamic else SIZE_HW).float()
    with torch.inference_mode():
        expected = network(images)
    logits, boxes = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(logits, expected.pred_logits, atol=1e-4)
    np.testing.assert_allclose(boxes, expected.pred_boxes, atol=1e-4)
    graph = onnx.load(path).graph
    assert sum(node.op_type == "TopK" for node in graph.node) == 2  # selection and one quality
    assert not any("lqe_layers/0" in one.name for one in graph.initializer)
