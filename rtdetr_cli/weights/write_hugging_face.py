"""Write a checkpoint for transformers: a folder that `from_pretrained` loads.

Names are mapped by the tables of name_tables.py, inverted; hugging_face_dfine.py has D-FINE's part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from rtdetr_cli.config.model import EncoderConfig, FDRDecoderConfig, ModelConfig, PResNetConfig
from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.core.files import atomic_folder
from rtdetr_cli.weights.checkpoint import Checkpoint, stored
from rtdetr_cli.weights.foreign import rename
from rtdetr_cli.weights.hugging_face_dfine import dfine_config, dfine_state
from rtdetr_cli.weights.licence import licence_entry
from rtdetr_cli.weights.name_tables import HUGGING_FACE
from rtdetr_cli.weights.write_official import (
    NORM_EPS,
    at_epsilon,
    norm_counters,
    points_scales,
)

# Rules with a leading dot are many to one, so their inverses are listed here.
_RENAMES = (
    *((hub, foreign) for foreign, hub in HUGGING_FACE if not foreign.startswith(".")),
    (".linear1.", ".fc1."),
    (".linear2.", ".fc2."),
)
_BACKBONE_LEAVES = {"conv": "convolution", "norm": "normalization"}
_DECODER_PART = re.compile(
    r"decoder\.(?:decoder\.layers|decoder\.lqe_layers|dec_score_head|dec_bbox_head)\.(\d+)\."
)


def write_hugging_face(folder: Path, checkpoint: Checkpoint) -> None:
    """Write model.safetensors, config.json and preprocessor_config.json atomically.

    An existing folder of these three files is replaced as a whole. Decoder layers that are not used
    at inference are dropped, because transformers runs all layers.

    Raises:
        WeightsError: transformers has no such RT-DETR.
        StorageError: No space left, no permission, or the folder holds other files.
    """
    checkpoint = without_idle_layers(checkpoint)
    metadata = {"format": "pt", **licence_entry(checkpoint.licence)}
    contents = {
        "config.json": _json(hugging_face_config(checkpoint)),
        "preprocessor_config.json": _json(image_processor(checkpoint)),
        "model.safetensors": save(hugging_face_state(checkpoint), metadata),
    }
    with atomic_folder(folder, contents) as temporary:
        for name, content in contents.items():
            (temporary / name).write_bytes(content)


def without_idle_layers(checkpoint: Checkpoint) -> Checkpoint:
    """Drop the decoder layers that are not used at inference."""
    decoder = checkpoint.config.decoder
    depth = decoder.eval_layers or decoder.num_layers
    config = replace(
        checkpoint.config, decoder=replace(decoder, num_layers=depth, eval_layers=None)
    )
    weights = {
        key: tensor
        for key, tensor in checkpoint.weights.items()
        if not (part := _DECODER_PART.match(key)) or int(part[1]) < depth
    }
    return replace(checkpoint, config=config, weights=weights)


def hugging_face_state(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The tensors by the names that transformers writes to disk."""
    weights = at_epsilon(checkpoint, NORM_EPS)
    if isinstance(checkpoint.config.decoder, FDRDecoderConfig):
        return stored(split_query_key_value(dfine_state(weights, checkpoint)))
    weights = {_backbone_leaf(key): tensor for key, tensor in weights.items()}
    state = stored(split_query_key_value(rename(weights, _RENAMES)))
    state |= norm_counters(state, frozen="model.backbone.")
    if checkpoint.config.decoder.sampling == "discrete":
        state |= points_scales("model.decoder.layers.{}.encoder_attn.n_points_scale", checkpoint)
    return state


def _backbone_leaf(key: str) -> str:
    """Rename the innermost modules of the backbone to convolution and normalization."""
    stem, leaf, kind = key.rsplit(".", 2) if key.startswith("backbone.") else (key, "", "")
    return f"{stem}.{_BACKBONE_LEAVES[leaf]}.{kind}" if leaf in _BACKBONE_LEAVES else key


def split_query_key_value(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Split the stacked q, k and v projections of PyTorch, as in Hugging Face."""
    apart = {}
    for key, tensor in state.items():
        stem, joined, kind = key.partition("in_proj_")
        if joined:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                apart[f"{stem}{letter}_proj.{kind}"] = part
        else:
            apart[key] = tensor
    return apart


def hugging_face_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """Content of config.json: D-FINE, RT-DETR, or RT-DETR V2 for discrete sampling.

    Raises:
        WeightsError: transformers has no such network.
    """
    names, decoder = checkpoint.names, checkpoint.config.decoder
    is_dfine = isinstance(decoder, FDRDecoderConfig)
    values = dfine_config(checkpoint.config) if is_dfine else _rtdetr_config(checkpoint.config)
    return {
        **values,
        "dtype": "float32",
        "id2label": {str(index): name for index, name in names.items()},
        "label2id": {name: index for index, name in names.items()},
        "batch_norm_eps": NORM_EPS,
        "decoder_ffn_dim": decoder.ffn_dim,
        "decoder_layers": decoder.num_layers,
        "decoder_attention_heads": decoder.num_heads,
        "num_queries": decoder.num_queries,
    }


def _rtdetr_config(config: ModelConfig) -> dict[str, Any]:
    backbone, encoder, decoder = _expressible(config), config.encoder, config.decoder
    assert isinstance(encoder, EncoderConfig)
    is_discrete = decoder.sampling == "discrete"
    kind = "rt_detr_v2" if is_discrete else "rt_detr"
    version = "V2" if is_discrete else ""
    values: dict[str, Any] = {
        "architectures": [f"RTDetr{version}ForObjectDetection"],
        "model_type": kind,
        "backbone_config": _backbone_config(backbone),
        "freeze_backbone_batch_norms": True,
        "feat_strides": list(config.strides),
        "encoder_hidden_dim": encoder.hidden_dim,
        "encoder_in_channels": list(backbone.map_widths[1:]),
        "encoder_layers": encoder.num_layers,
        "encoder_ffn_dim": encoder.ffn_dim,
        "encoder_attention_heads": encoder.num_heads,
        "hidden_expansion": encoder.expansion,
        "d_model": decoder.hidden_dim,
        "decoder_in_channels": [encoder.hidden_dim] * 3,
        "decoder_n_points": decoder.num_points[0],
    }
    return {**values, "decoder_method": "discrete"} if is_discrete else values


def _expressible(config: ModelConfig) -> PResNetConfig:
    """Check that transformers can build the network; return its backbone."""
    backbone = config.backbone
    if not isinstance(backbone, PResNetConfig):
        raise WeightsError(
            f"{config.name} cannot be written as hf: transformers has no RT-DETR with an HGNetv2 "
            "backbone; use format=official or format=safetensors"
        )
    for holds, rule in _RULES:
        if not holds(config, backbone):
            raise WeightsError(
                f"{config.name} cannot be written as hf: transformers requires {rule}; use "
                "format=official or format=safetensors"
            )
    return backbone


def _has_plain_stem(_: ModelConfig, backbone: PResNetConfig) -> bool:
    first, second, third = backbone.stem
    return first == second == third / 2


def _has_plain_shortcuts(_: ModelConfig, backbone: PResNetConfig) -> bool:
    """For basic blocks, transformers derives the kind of shortcut from the widths."""
    differ = all(before != after for before, after in pairwise(backbone.widths))
    return backbone.bottleneck or (backbone.widths[0] == backbone.stem[2] and differ)


# Properties fixed in transformers: a check, and its description for the message.
_RULES: tuple[tuple[Callable[[ModelConfig, PResNetConfig], bool], str], ...] = (
    (_has_plain_stem, "a stem of widths n, n and 2n"),
    (
        _has_plain_shortcuts,
        "basic blocks whose first stage is as wide as the stem and whose stages differ in width",
    ),
    (lambda config, _: config.encoder.num_csp_blocks == 3, "three RepVGG blocks per CSP block"),
    (lambda config, _: config.decoder.activation == "relu", "ReLU in the decoder"),
    (lambda config, _: config.decoder.position_layers == 2, "a position head of two layers"),
    (
        lambda config, _: len(set(config.decoder.num_points)) == 1,
        "the same number of sampling points on every level",
    ),
)


def _backbone_config(backbone: PResNetConfig) -> dict[str, Any]:
    return {
        "model_type": "rt_detr_resnet",  # the same for both classes
        "embedding_size": backbone.stem[2],
        "hidden_sizes": list(backbone.map_widths),
        "depths": list(backbone.blocks),
        "layer_type": "bottleneck" if backbone.bottleneck else "basic",
        "out_features": ["stage2", "stage3", "stage4"],
    }


def image_processor(checkpoint: Checkpoint) -> dict[str, Any]:
    """Content of preprocessor_config.json: bilinear resize with antialias, division by 255."""
    height, width = checkpoint.preprocessing.size_hw
    return {
        "image_processor_type": "RTDetrImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": False,
        "do_pad": False,
        "format": "coco_detection",
    }


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()
