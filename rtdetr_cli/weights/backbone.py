"""Read files that hold only a backbone, trained on ImageNet.

One table of names covers the files of the official repository, D-FINE, timm (HGNetv2) and Paddle,
which differ in few names. foreign.py reads whole detectors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from rtdetr_cli.config.model import HGNetv2Config, PResNetConfig
from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.weights.architecture import infer_backbone
from rtdetr_cli.weights.foreign import rename
from rtdetr_cli.weights.hgnetv2_affine import fold_affine_blocks
from rtdetr_cli.weights.name_tables import OFFICIAL_HGNETV2, Rename
from rtdetr_cli.weights.paddle import number_blocks

State = Mapping[str, Tensor]

PREFIX = "backbone."
_SIGN = re.compile(r"(stem\.stem1|conv1\.conv1_1)\.conv\.weight")
"""The first convolution of HGNetv2 and of PResNet; a detector has a prefix before it."""
_HEAD = re.compile(r"backbone\.(head|fc|last_conv|last_fc|classifier|out)\.")

RENAMES: tuple[Rename, ...] = (
    ("._mean", ".running_mean"),
    ("._variance", ".running_var"),
    *OFFICIAL_HGNETV2,
)


@dataclass
class Backbone:
    """A trained backbone.

    Attributes:
        config: its architecture, read from the shapes.
        weights: tensors by their official v2 names, prefixed with `backbone.`.
        origin: the file's name.
        notes: what was dropped, human-readable.
        licence: as in a checkpoint.
    """

    config: HGNetv2Config | PResNetConfig
    weights: dict[str, Tensor] = field(repr=False)
    origin: str
    notes: tuple[str, ...] = ()
    licence: str = ""


def is_backbone(state: State) -> bool:
    """Whether the tensors are those of a backbone alone."""
    return any(_SIGN.fullmatch(key) for key in _bare(state))


def read_backbone(state: State, origin: str) -> Backbone:
    """Read the backbone in a state dict of any family.

    Args:
        state: tensors for which `is_backbone` is true.
        origin: the file's name, for messages.

    Raises:
        WeightsError: The tensors are not those of HGNetv2 or PResNet.
    """
    prefixed = {
        PREFIX + key: tensor
        for key, tensor in _bare(state).items()
        if not key.endswith("num_batches_tracked")
    }
    named = rename(number_blocks(prefixed), RENAMES)
    head = [key for key in named if _HEAD.match(key)]
    weights = {key: tensor for key, tensor in named.items() if key not in head}
    config = infer_backbone(weights, origin)
    notes = (f"{len(head)} classifier tensors dropped: {_shown(head)}",) if head else ()
    return Backbone(config, weights, origin, notes)


def covers(config: HGNetv2Config | PResNetConfig, target: HGNetv2Config | PResNetConfig) -> bool:
    """Whether a backbone has the layers of `target`, which may end a stage earlier."""
    if isinstance(config, HGNetv2Config) and isinstance(target, HGNetv2Config):
        return config.stem == target.stem and config.stages[: len(target.stages)] == target.stages
    return config == target


def fitted(backbone: Backbone, target: HGNetv2Config | PResNetConfig) -> Backbone:
    """The backbone without what `target` does not have: affine blocks, a fourth stage.

    Raises:
        WeightsError: an affine block cannot be folded into the convolutions.
    """
    config, weights, notes = backbone.config, backbone.weights, [*backbone.notes]
    if not (isinstance(target, HGNetv2Config) and covers(config, target)):
        return backbone
    assert isinstance(config, HGNetv2Config)
    if config.learnable_affine and not target.learnable_affine:
        weights = _folded(weights, config, backbone.origin)
        notes.append("affine blocks folded into the convolutions, exact except at the border")
    if len(config.stages) > len(target.stages):
        start = f"{PREFIX}stages.{len(target.stages)}."
        weights = {key: tensor for key, tensor in weights.items() if not key.startswith(start)}
        notes.append(f"stage {len(config.stages)} left out, which the architecture does not have")
    return replace(backbone, config=target, weights=weights, notes=tuple(notes))


def _folded(weights: dict[str, Tensor], config: HGNetv2Config, origin: str) -> dict[str, Tensor]:
    try:
        return fold_affine_blocks(weights, config)
    except KeyError as error:
        raise WeightsError(
            f"{origin} is not a complete backbone: {error.args[0]} is missing"
        ) from None
    except (ValueError, IndexError, RuntimeError) as error:  # RuntimeError: torch, on shapes
        raise WeightsError(f"{origin} is not a supported backbone: {error}") from None


def _bare(state: State) -> dict[str, Tensor]:
    """The tensors without the prefix that DDP, or the naming of a detector, adds to every name."""
    bare = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    if all(key.startswith(PREFIX) for key in bare):
        return {key.removeprefix(PREFIX): tensor for key, tensor in bare.items()}
    return bare


def _shown(keys: list[str]) -> str:
    more = ", ..." if len(keys) > 3 else ""
    return ", ".join(key.removeprefix(PREFIX) for key in keys[:3]) + more
