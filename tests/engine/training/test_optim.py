"""Parameter groups, frozen parts and the moving average."""

from __future__ import annotations

import math

import pytest
import torch

from rtdetr_cli.config.model import RecipeConfig
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.engine.training.ema import EMA
from rtdetr_cli.engine.training.optim import build_optimizer, freeze, set_learning_rate, train_mode
from rtdetr_cli.engine.training.recipe import resolve_recipe
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

OFFICIAL = RecipeConfig(backbone_lr=1e-5, freeze_stem=True, freeze_backbone_norm=True)


@pytest.fixture
def network(tiny_config) -> RTDETRNetwork:
    torch.manual_seed(0)
    return RTDETRNetwork(tiny_config, num_classes=2)


def recipe(is_pretrained: bool):
    return resolve_recipe(TrainSettings(data="x", epochs=10), OFFICIAL, 10, is_pretrained)


def test_every_trained_parameter_is_in_one_group_with_its_own_rate_and_decay(network):
    chosen = recipe(is_pretrained=True)
    freeze(network, chosen)
    optimizer = build_optimizer(network, chosen)
    rate_of = {
        id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]
    }
    for name, parameter in network.named_parameters():
        if name.startswith("backbone.stem") or (name.startswith("backbone") and ".bn." in name):
            assert not parameter.requires_grad, name
            assert id(parameter) not in rate_of
        else:
            expected = (1e-5 if name.startswith("backbone") else 1e-4, 1e-4 * (parameter.ndim > 1))
            assert rate_of[id(parameter)] == expected, name


def test_frozen_norms_keep_their_statistics_in_training(network):
    chosen = recipe(is_pretrained=True)
    train_mode(network, chosen)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network(torch.rand(2, 3, 64, 64))
    moved = {
        name for name, buffer in network.named_buffers() if not torch.equal(buffer, before[name])
    }
    assert not [name for name in moved if name.startswith("backbone")]
    assert any(name.startswith("encoder") for name in moved)


def test_warm_up_and_cosine_reach_every_group(network):
    chosen = recipe(is_pretrained=False)
    optimizer = build_optimizer(network, chosen)
    set_learning_rate(optimizer, chosen, step=50)
    middle = 1e-3 * (0.01 + 0.99 * 0.5)  # cosine half way between 1 and 0.01
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([middle] * 4)


def test_momentum_is_that_of_sgd_and_beta1_of_adamw(network):
    for keys, name in (({"optimizer": "sgd", "lr": 1e-2}, "momentum"), ({}, "betas")):
        settings = TrainSettings(data="x", momentum=0.8, **keys)
        optimizer = build_optimizer(network, resolve_recipe(settings, OFFICIAL, 10, False))
        used = {group[name] for group in optimizer.param_groups}
        assert used == {0.8 if name == "momentum" else (0.8, 0.999)}


def test_the_average_follows_the_ramped_decay_by_hand(network):
    ema = EMA(network, decay=0.9, ramp=5)
    expected = network.decoder.enc_score_head.bias.detach().clone()
    for step in range(1, 4):
        with torch.no_grad():
            network.decoder.enc_score_head.bias.add_(1.0)
        ema.update()
        decay = 0.9 * (1 - math.exp(-step / 5))
        expected = decay * expected + (1 - decay) * network.decoder.enc_score_head.bias.detach()
    torch.testing.assert_close(ema.network.decoder.enc_score_head.bias, expected)


def test_the_average_takes_norm_statistics_along(network):
    ema = EMA(network, decay=0.0, ramp=1)
    network.train()(torch.rand(2, 3, 64, 64))
    ema.update()
    slow, fast = (net.encoder.input_proj[0].norm.running_mean for net in (ema.network, network))
    torch.testing.assert_close(slow, fast)
    assert not torch.equal(slow, torch.zeros_like(slow))
