"""Networks with every parameter and statistic away from its starting value, in float64."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rtdetr_cli.config.model import ModelConfig
from rtdetr_cli.nn.rtdetr import RTDETRNetwork


def randomized(config: ModelConfig, num_classes: int = 5) -> RTDETRNetwork:
    """Starting values hide mistakes: box heads that are zero, norms that do nothing."""
    config = replace(
        config,
        encoder=replace(config.encoder, position_precision="float64"),
        decoder=replace(config.decoder, anchor_precision="float64"),
    )
    torch.manual_seed(0)
    network = RTDETRNetwork(config, num_classes).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return network


@pytest.fixture(scope="session")
def parity_kit() -> dict[str, Any]:
    """`image`, and `fill`, which makes weights from names: from tests/weights/conftest.py."""
    return runpy.run_path(str(Path(__file__).parents[1] / "weights" / "conftest.py"))


@pytest.fixture
def network(tiny_config: ModelConfig) -> RTDETRNetwork:
    return randomized(tiny_config)


@pytest.fixture
def presnet_network(tiny_presnet_config: ModelConfig) -> RTDETRNetwork:
    return randomized(tiny_presnet_config)


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, 64, 96, generator=generator, dtype=torch.float64)
