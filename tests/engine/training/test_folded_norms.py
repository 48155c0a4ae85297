"""Networks whose norms were folded train on, and compute what they did."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rtdetr_cli.cli.main import run
from rtdetr_cli.engine.training.folded_norms import folded_norms, restore_norms
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint
from tests.engine.test_train import command


@pytest.fixture
def folded(tiny_config) -> RTDETRNetwork:
    """A network with neutral norms, but for their shifts, as files made from an export have."""
    torch.manual_seed(0)
    network = RTDETRNetwork(tiny_config, num_classes=2).eval()
    for norm in norms_of(network):
        nn.init.normal_(norm.bias, std=0.5)
    return network


def norms_of(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def test_outputs_stay_and_training_starts_from_them(folded):
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert len(folded_norms(folded)) == len(norms_of(folded))
    before = folded.double().encoder(folded.backbone(images.double()))
    restore_norms(folded, images.double().split(2))
    assert not folded_norms(folded)
    after = folded.encoder(folded.backbone(images.double()))
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old, rtol=1e-9, atol=1e-9)
    for norm in norms_of(folded):
        norm.train()
    trained = folded.encoder(folded.backbone(images.double()))  # the batch has these statistics
    for old, new in zip(before, trained, strict=True):
        torch.testing.assert_close(new, old, rtol=1e-3, atol=1e-3)


def test_a_network_that_was_never_trained_or_has_statistics_has_no_folded_norms(
    folded, tiny_config
):
    assert not folded_norms(RTDETRNetwork(tiny_config, num_classes=2))
    for norm in norms_of(folded):
        norm.running_mean.fill_(0.1)
    assert not folded_norms(folded)


def test_the_command_measures_them_and_says_so(folded, squares, tmp_path, capsys):
    names = {0: "green", 1: "red"}
    state = folded.state_dict()
    save_checkpoint(tmp_path / "folded.pt", Checkpoint(folded.config, names, state))
    assert run(command(tmp_path / "folded.pt", squares, tmp_path / "runs", "val=false")) == 0
    said = f"{len(norms_of(folded))} norms of these weights are folded into convolutions"
    assert said in capsys.readouterr().err
