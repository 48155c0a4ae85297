"""The deployed form of a network computes the same as the network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from rtdetr_cli.backends.onnx.network import DeployedNetwork
from rtdetr_cli.config.model import ModelConfig
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

SIZE_HW = (64, 96)


def make_network(config: ModelConfig, **decoder: object) -> RTDETRNetwork:
    """Every parameter away from its starting value, in float64; boxes stay off the border."""
    config = replace(
        config,
        encoder=replace(config.encoder, position_precision="float64"),
        decoder=replace(config.decoder, anchor_precision="float64", **decoder),
    )
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


@torch.inference_mode()
def assert_equal(network, deployed, size_hw=SIZE_HW, tolerance=1e-9):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(2, 3, *size_hw, generator=generator, dtype=torch.float64)
    images = images.to(next(network.parameters()).dtype)
    expected, found = network(images), deployed(images)
    near = {"atol": tolerance, "rtol": tolerance}
    torch.testing.assert_close(found.pred_logits, expected.pred_logits, **near)
    torch.testing.assert_close(found.pred_boxes, expected.pred_boxes, **near)


@pytest.mark.parametrize("sampler", ["grid_sample", "gather"])
@pytest.mark.parametrize("size_hw", [SIZE_HW, None])
def test_outputs_equal_the_network(tiny_config, sampler, size_hw):
    network = make_network(tiny_config)
    assert_equal(network, DeployedNetwork(network, size_hw, sampler))


@pytest.mark.parametrize("sampler", ["grid_sample", "gather"])
def test_outputs_equal_the_network_on_resnet(tiny_presnet_config, sampler):
    network = make_network(tiny_presnet_config)
    assert_equal(network, DeployedNetwork(network, SIZE_HW, sampler))


@pytest.mark.parametrize("speed", [(1, 7), (2, None), (3, 1000)])
def test_speed_settings_are_kept(tiny_config, speed):
    network = make_network(tiny_config)
    network.set_speed(*speed)
    deployed = DeployedNetwork(network, SIZE_HW)
    assert len(deployed.decoder.layers) == speed[0]
    assert_equal(network, deployed)


@pytest.mark.parametrize("sampling", ["bilinear", "discrete"])
def test_points_and_sampling_are_kept(tiny_config, sampling):
    network = make_network(tiny_config, num_points=(2, 3, 1), sampling=sampling)
    assert_equal(network, DeployedNetwork(network, SIZE_HW))


def test_two_layers_of_aifi(tiny_config):
    config = replace(tiny_config, encoder=replace(tiny_config.encoder, num_layers=2))
    network = make_network(config)
    assert_equal(network, DeployedNetwork(network, SIZE_HW))


def test_single_precision_stays_single(tiny_config):
    network = make_network(tiny_config).float()
    deployed = DeployedNetwork(network, SIZE_HW)
    assert {parameter.dtype for parameter in deployed.parameters()} == {torch.float32}
    assert_equal(network, deployed, tolerance=1e-5)


def test_invalid_cells_are_selected_as_in_the_network(tiny_config):
    """At 480 pixels the outer ring of the finest map is invalid; here its score is the best."""
    network = make_network(tiny_config, num_queries=400)
    deployed = DeployedNetwork(network, (480, 480))
    assert deployed.decoder.selection.has_invalid == [True, False, False]
    images = torch.rand(2, 3, 480, 480, dtype=torch.float64)
    output, head = network.decoder.enc_output, network.decoder.enc_score_head
    with torch.inference_mode():
        feature = output(torch.zeros(1, 16, dtype=torch.float64))  # of a masked cell
        for one in (head, deployed.decoder.selection.score_head):
            one.weight.copy_(feature.expand_as(one.weight))
        maps = network.encoder(network.backbone(images))
        projected = [p(x) for p, x in zip(network.decoder.input_proj, maps, strict=True)]
        memory = torch.cat([x.flatten(2).transpose(1, 2) for x in projected], dim=1)
        expected = network.decoder.select_queries(memory, [x.shape[-2:] for x in projected])
        content, boxes_logit, _ = deployed.decoder.selection(
            deployed.encoder(deployed.backbone(images))
        )
    assert (boxes_logit[:, 0] > 5000).sum() == 2 * 4 * 59
    torch.testing.assert_close(content, expected.content.flatten(0, 1), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(boxes_logit, expected.boxes_logit.flatten(0, 1))
    # The network clips such boxes at every layer, by up to 1e-5 of the image.
    assert_equal(network, deployed, (480, 480), tolerance=1e-5)
