"""D-FINE in transformers: config.json and the names of the tensors on disk.

write_hugging_face.py writes the folder; transformers' DEIMv2 is another network and not written.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rtdetr_cli.config.model import (
    DEIMv2DecoderConfig,
    EncoderConfig,
    FDRDecoderConfig,
    HGNetv2Config,
    ModelConfig,
)
from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.weights.checkpoint import Checkpoint
from rtdetr_cli.weights.foreign import rename
from rtdetr_cli.weights.name_tables import HUGGING_FACE_DFINE, OFFICIAL_HGNETV2, Rename
from rtdetr_cli.weights.write_official import norm_counters, points_scales

# Rules with a leading dot are many to one, so their inverses are listed here.
_RENAMES: tuple[Rename, ...] = (
    *((hub, official) for official, hub in OFFICIAL_HGNETV2),
    *(
        (hub, foreign)
        for foreign, hub in HUGGING_FACE_DFINE
        if not foreign.startswith(".") and (foreign, hub) not in OFFICIAL_HGNETV2
    ),
    (".linear1.", ".fc1."),
    (".linear2.", ".fc2."),
)
_BACKBONE_LEAVES: tuple[Rename, ...] = (
    (".conv.weight", ".convolution.weight"),
    (".bn.", ".normalization."),
)


def dfine_state(weights: dict[str, Tensor], checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The tensors by transformers' names, with stacked q, k and v, and the buffers it stores."""
    state = rename(weights, _RENAMES)
    backbone = {name: state.pop(name) for name in [*state] if name.startswith("model.backbone.")}
    state |= rename(backbone, _BACKBONE_LEAVES)
    decoder = checkpoint.config.decoder
    assert isinstance(decoder, FDRDecoderConfig)
    state |= {
        "model.decoder.up": torch.tensor([0.5]),
        "model.decoder.reg_scale": torch.tensor([decoder.reg_scale]),
    }
    is_frozen = checkpoint.config.recipe.freeze_backbone_norm
    state |= norm_counters(state, frozen="model.backbone." if is_frozen else "-")
    return state | points_scales(
        "model.decoder.layers.{}.encoder_attn.num_points_scale", checkpoint
    )


def dfine_config(config: ModelConfig) -> dict[str, Any]:
    """What config.json has besides the entries of all families.

    Raises:
        WeightsError: transformers has no such network.
    """
    backbone, encoder, decoder = config.backbone, config.encoder, config.decoder
    if not (
        isinstance(decoder, FDRDecoderConfig)
        and not isinstance(decoder, DEIMv2DecoderConfig)
        and isinstance(encoder, EncoderConfig)
        and isinstance(backbone, HGNetv2Config)
        and encoder.fusion == "elan"
    ):
        raise WeightsError(
            f"{config.name} cannot be written as hf: of the networks with this decoder "
            "transformers has D-FINE only (its DEIMv2 is another network); use format=official or "
            "format=safetensors"
        )
    levels = backbone.num_maps
    return {
        "architectures": ["DFineForObjectDetection"],
        "model_type": "d_fine",
        "backbone_config": _backbone_config(backbone),
        "freeze_backbone_batch_norms": config.recipe.freeze_backbone_norm,
        "feat_strides": list(config.strides),
        "encoder_hidden_dim": encoder.hidden_dim,
        "encoder_in_channels": list(backbone.map_widths[-levels:]),
        "encode_proj_layers": [levels - 1],
        "encoder_layers": encoder.num_layers,
        "encoder_ffn_dim": encoder.ffn_dim,
        "encoder_attention_heads": encoder.num_heads,
        "hidden_expansion": encoder.expansion,
        "depth_mult": encoder.num_csp_blocks / 3,
        "d_model": decoder.hidden_dim,
        "num_feature_levels": levels,
        "decoder_in_channels": [encoder.hidden_dim] * levels,
        "decoder_n_points": list(decoder.num_points),
        "decoder_activation_function": decoder.activation,
        "max_num_bins": decoder.reg_max,
        "reg_scale": decoder.reg_scale,
    }


def _backbone_config(backbone: HGNetv2Config) -> dict[str, Any]:
    mid, width = backbone.stem
    stages, outs = backbone.stages, list(backbone.map_widths)
    names = [f"stage{number}" for number in range(1, len(stages) + 1)]
    return {
        "model_type": "hgnet_v2",
        "stem_channels": [3, mid, width],
        "embedding_size": width,
        "hidden_sizes": outs,
        "depths": [stage.blocks for stage in stages],
        "stage_in_channels": [width, *outs[:-1]],
        "stage_mid_channels": [stage.mid for stage in stages],
        "stage_out_channels": outs,
        "stage_num_blocks": [stage.blocks for stage in stages],
        "stage_downsample": [index > 0 for index in range(len(stages))],
        "stage_downsample_strides": [2] * len(stages),
        "stage_light_block": [stage.light for stage in stages],
        "stage_kernel_size": [stage.kernel for stage in stages],
        "stage_numb_of_layers": [stage.layers for stage in stages],
        "use_learnable_affine_block": backbone.learnable_affine,
        "out_features": names[-backbone.num_maps :],
    }
