"""A network that begins with an ImageNet backbone; its encoder and decoder begin from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from rtdetr_cli.backends.torch import build_network, shipped_states
from rtdetr_cli.config.model import ModelConfig
from rtdetr_cli.core.console import say
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.backbone import PREFIX, Backbone
from rtdetr_cli.weights.checkpoint import check_fit


def from_backbone(config: ModelConfig, num_classes: int, backbone: Backbone) -> RTDETRNetwork:
    """A network whose backbone is trained and whose other tensors are drawn.

    Raises:
        WeightsError: the backbone is not the architecture's; names the first tensors.
    """
    network = build_network(config, num_classes)
    own = _of_backbone(network.state_dict())
    check_fit(backbone.weights, own, backbone.origin, _shipped_backbones)
    network.load_state_dict(network.state_dict() | backbone.weights)
    notes = "".join(f"; {note}" for note in backbone.notes)
    say(f"backbone from {backbone.origin}; encoder and decoder from scratch{notes}")
    return network


def _shipped_backbones() -> Iterator[tuple[str, dict[str, Tensor]]]:
    for name, state in shipped_states(1):
        yield name, _of_backbone(state)


def _of_backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name.startswith(PREFIX)}
