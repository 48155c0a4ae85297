"""Write a checkpoint for the official repositories; write_hugging_face.py writes for transformers.

A decoder of distributions is written for D-FINE, DEIM, RT-DETRv4 or DEIMv2, others for RT-DETRv2.

Norms are written for an epsilon of 1e-5, the only one that both support.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtdetr_cli.config.model import DEIMv2DecoderConfig, FDRDecoderConfig
from rtdetr_cli.core.files import atomic_write
from rtdetr_cli.weights.checkpoint import Checkpoint, stored
from rtdetr_cli.weights.foreign import rename
from rtdetr_cli.weights.licence import licence_entry
from rtdetr_cli.weights.name_tables import OFFICIAL_HGNETV2

NORM_EPS = 1e-5


def write_official(path: Path, checkpoint: Checkpoint) -> None:
    """Write a training checkpoint that the official code loads strictly with `-r` or `-t`.

    Raises:
        StorageError: No space left or no permission; an existing file is kept.
    """
    state = official_state(checkpoint)
    averaged = {"module": state, "updates": 0}  # tensors are stored once
    content = {"model": state, "ema": averaged, **licence_entry(checkpoint.licence)}
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)


def official_state(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The state dict of the official network: our tensors and its additional buffers."""
    config = checkpoint.config
    state = stored(at_epsilon(checkpoint, NORM_EPS))
    if isinstance(config.decoder, FDRDecoderConfig):
        state = refined_state(state, config.decoder)
    state |= norm_counters(state, frozen="backbone." if config.recipe.freeze_backbone_norm else "-")
    state |= official_anchors(checkpoint.preprocessing.size_hw, config.strides)
    return state | points_scales(
        "decoder.decoder.layers.{}.cross_attn.num_points_scale", checkpoint
    )


def refined_state(state: dict[str, Tensor], decoder: FDRDecoderConfig) -> dict[str, Tensor]:
    """The tensors by the names of D-FINE and DEIMv2, with the constants of their decoder."""
    state = rename(state, tuple((hub, official) for official, hub in OFFICIAL_HGNETV2))
    if isinstance(decoder, DEIMv2DecoderConfig) and decoder.shared_box_head:
        head = "decoder.dec_bbox_head.0."
        state |= {
            key.replace(head, f"decoder.dec_bbox_head.{layer}."): tensor
            for key, tensor in state.items()
            for layer in range(1, decoder.num_layers)
            if key.startswith(head)
        }
    whole = decoder.reg_scale == int(decoder.reg_scale)  # official files have it as int64
    constants = {
        "up": torch.tensor([0.5]),
        "reg_scale": torch.tensor([int(decoder.reg_scale) if whole else decoder.reg_scale]),
    }
    for place in ("decoder.", "decoder.decoder."):
        state |= {f"{place}{name}": tensor for name, tensor in constants.items()}
    return state


def official_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """Settings for the official YAML that the tensors do not determine."""
    decoder = checkpoint.config.decoder
    settings: dict[str, Any] = {
        "num_classes": len(checkpoint.names),
        "eval_spatial_size": list(checkpoint.preprocessing.size_hw),
        "num_queries": decoder.num_queries,
        "eval_idx": (decoder.eval_layers or decoder.num_layers) - 1,
    }
    if decoder.activation != "relu":
        settings |= {"activation": decoder.activation, "mlp_act": decoder.activation}
    if decoder.sampling == "discrete":
        settings["cross_attn_method"] = "discrete"
    return settings


def at_epsilon(checkpoint: Checkpoint, norm_eps: float) -> dict[str, Tensor]:
    """The weights for norms of another epsilon: the variances absorb the difference."""
    shift = checkpoint.config.norm_eps - norm_eps
    return {
        key: tensor + shift if shift and key.endswith("running_var") else tensor
        for key, tensor in checkpoint.weights.items()
    }


def norm_counters(state: dict[str, Tensor], frozen: str) -> dict[str, Tensor]:
    """`num_batches_tracked` of every BatchNorm whose name does not start with `frozen`."""
    return {
        f"{key.removesuffix('running_var')}num_batches_tracked": torch.tensor(0)
        for key in state
        if key.endswith("running_var") and not key.startswith(frozen)
    }


def points_scales(template: str, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The buffer (P,) of each v2 decoder layer: 1/n for each of the n points of a level."""
    decoder = checkpoint.config.decoder
    scale = torch.tensor([1 / count for count in decoder.num_points for _ in range(count)])
    return {template.format(index): scale.clone() for index in range(decoder.num_layers)}


def official_anchors(size_hw: tuple[int, int], strides: tuple[int, ...]) -> dict[str, Tensor]:
    """Logits of the anchors (1, N, 4), infinite where invalid, and their mask (1, N, 1).

    One square per cell of each level, with side 0.05 * 2^level; valid inside (0.01, 0.99).
    """
    levels = []
    for level, stride in enumerate(strides):
        height, width = size_hw[0] // stride, size_hw[1] // stride
        rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
        centre_y, centre_x = torch.meshgrid(rows / height, columns / width, indexing="ij")
        side = torch.full_like(centre_x, 0.05 * 2.0**level)
        levels.append(torch.stack((centre_x, centre_y, side, side), dim=-1).reshape(1, -1, 4))
    anchors = torch.cat(levels, dim=1)
    is_valid = ((anchors > 0.01) & (anchors < 0.99)).all(dim=-1, keepdim=True)
    logits = torch.log(anchors / (1 - anchors)).where(is_valid, torch.inf)
    return {"decoder.anchors": logits, "decoder.valid_mask": is_valid}
