"""The network before the first step: random, an ImageNet backbone, or fine-tuned weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from rtdetr_cli.backends.torch import build_network, shipped_states
from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.config.model import ModelConfig
from rtdetr_cli.config.model_path import is_architecture
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.console import say
from rtdetr_cli.core.errors import DataError
from rtdetr_cli.engine.training.recipe import starts_pretrained
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.backbone import PREFIX, Backbone
from rtdetr_cli.weights.checkpoint import Checkpoint, check_fit
from rtdetr_cli.weights.decoder_family import check_same_decoder
from rtdetr_cli.weights.licence import FROM_SCRATCH, fine_tuned
from rtdetr_cli.weights.licence import from_backbone as backbone_licence
from rtdetr_cli.weights.reader import open_weights
from rtdetr_cli.weights.store import open_start, resolve_weights
from rtdetr_cli.weights.transfer import transfer_classes


def from_backbone(config: ModelConfig, num_classes: int, backbone: Backbone) -> RTDETRNetwork:
    """A network with a pretrained backbone and random encoder and decoder.

    Raises:
        WeightsError: the backbone does not fit the architecture; names the first tensors.
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


def initial_network(
    settings: TrainSettings, names: dict[int, str], stopped: Checkpoint | None
) -> tuple[RTDETRNetwork, bool, str]:
    """The network before the first step, whether its backbone is pretrained, and its licence.

    Raises:
        DataError: the stopped run had a different number of classes.
        WeightsError: the weights do not fit, or are for a decoder that computes something else.
    """
    if stopped:
        if len(stopped.names) != len(names):
            raise DataError(
                f"{settings.data} has {len(names)} classes, the run was started with "
                f"{len(stopped.names)}; restore the data, or start a new run"
            )
        network = build_network(stopped.config, len(names))
        return network, starts_pretrained(settings), stopped.licence
    if is_architecture(settings.model):
        config = load_model_config(settings.model)
        if settings.pretrained is None:
            return build_network(config, len(names)), False, FROM_SCRATCH
        checkpoint = open_start(settings.pretrained, config, settings.family)
        if isinstance(checkpoint, Backbone):
            licence = backbone_licence(checkpoint.origin, checkpoint.licence)
            return from_backbone(config, len(names), checkpoint), True, licence
        check_same_decoder(config, checkpoint.config, settings.pretrained)
    else:
        checkpoint = open_weights(resolve_weights(settings.model), family=settings.family)
        config = checkpoint.config
    exact = replace(
        config.decoder, anchor_precision="float32"
    )  # undoes the rounding of a half-precision file
    config = replace(config, norm_eps=checkpoint.config.norm_eps, decoder=exact)
    source = Path(settings.pretrained or settings.model).name
    network = _fine_tuned(config, checkpoint, names, source)
    return network, True, fine_tuned(source, checkpoint.licence)


def _fine_tuned(
    config: ModelConfig, checkpoint: Checkpoint, names: dict[int, str], source: str
) -> RTDETRNetwork:
    """A network with the checkpoint's weights; class rows are matched by name."""
    fresh = build_network(config, len(names)).state_dict()
    weights, kept = transfer_classes(checkpoint.weights, checkpoint.names, fresh, names)
    shown = f": {', '.join(kept[:5])}{', ...' if len(kept) > 5 else ''}" if kept else ""
    rest = "" if len(kept) == len(names) else "; the others start from the mean of all"
    say(
        f"weights from {source} ({checkpoint.origin}); {len(kept)} of {len(names)} class rows kept "
        f"by name{shown}{rest}"
    )
    return build_network(config, len(names), weights)
