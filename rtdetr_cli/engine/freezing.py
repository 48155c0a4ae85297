"""What the key `freeze` means: a number of backbone stages, or parts of the network by name."""

from __future__ import annotations

from torch import nn

from rtdetr_cli.core.errors import UsageError, nearest
from rtdetr_cli.nn.backbones.hgnetv2 import HGNetv2
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

Part = nn.Module | nn.Parameter


def named_parts(network: RTDETRNetwork, freeze: str) -> list[Part]:
    """Modules and parameters that `freeze` names.

    Args:
        network: the network that they are looked for in.
        freeze: the number of leading backbone stages, which takes the stem along, or names with
            commas between them: `backbone`, `encoder.input_proj`, `decoder.enc_score_head.bias`.

    Raises:
        UsageError: no such part, or more stages than the backbone has.
    """
    if freeze.isdigit():
        return _leading_stages(network, int(freeze))
    known: dict[str, Part] = {**dict(network.named_modules()), **dict(network.named_parameters())}
    known.pop("")
    parts = []
    for name in (word.strip() for word in freeze.split(",")):
        if name not in known:
            hint = nearest(name, known) or "; parts are backbone, encoder and decoder"
            raise UsageError(f"freeze: the network has no part {name}{hint}")
        parts.append(known[name])
    return parts


def _leading_stages(network: RTDETRNetwork, count: int) -> list[Part]:
    backbone = network.backbone
    if isinstance(backbone, HGNetv2):
        stages: list[Part] = [backbone.stem, *backbone.stages]
    else:
        stages = [backbone.conv1, *backbone.res_layers]
    most = len(stages) - 1  # the stem is no stage, but goes with the first
    if count > most:
        raise UsageError(f"freeze={count}: the backbone has {most} stages; freeze=backbone")
    return stages[: count + 1]
