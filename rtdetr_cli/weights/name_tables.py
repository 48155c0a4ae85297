"""Names of tensors in other families, as tables: foreign name, then hub name.

The hub names are those of the official v2 code and of our network. Rules are applied in order; `*`
is a number, a leading dot matches anywhere, else at the start. foreign.py applies them, the writers
apply them in the other direction.
"""

from __future__ import annotations

Rename = tuple[str, str]

OFFICIAL_V1: tuple[Rename, ...] = (
    ("encoder.input_proj.*.0.", "encoder.input_proj.*.conv."),
    ("encoder.input_proj.*.1.", "encoder.input_proj.*.norm."),
    ("decoder.enc_output.0.", "decoder.enc_output.proj."),
    ("decoder.enc_output.1.", "decoder.enc_output.norm."),
)

_HF_STAGE = "model.backbone.model.encoder.stages.*.layers.*."
_HUB_STAGE = "backbone.res_layers.*.blocks.*."

_PADDLE_FPN = "neck.fpn_blocks.*.bottlenecks.*.conv*."
_PADDLE_PAN = "neck.pan_blocks.*.bottlenecks.*.conv*."

_HF_PARTS: tuple[Rename, ...] = (
    # encoder
    ("model.encoder_input_proj.*.0.", "encoder.input_proj.*.conv."),
    ("model.encoder_input_proj.*.1.", "encoder.input_proj.*.norm."),
    ("model.encoder.encoder.*.layers.*.self_attn_layer_norm.", "encoder.encoder.*.layers.*.norm1."),
    ("model.encoder.encoder.*.layers.*.final_layer_norm.", "encoder.encoder.*.layers.*.norm2."),
    ("model.encoder.", "encoder."),
    # decoder
    ("model.decoder_input_proj.*.0.", "decoder.input_proj.*.conv."),
    ("model.decoder_input_proj.*.1.", "decoder.input_proj.*.norm."),
    ("model.enc_output.0.", "decoder.enc_output.proj."),
    ("model.enc_output.1.", "decoder.enc_output.norm."),
    ("model.enc_score_head.", "decoder.enc_score_head."),
    ("model.enc_bbox_head.", "decoder.enc_bbox_head."),
    ("model.denoising_class_embed.", "decoder.denoising_class_embed."),
    ("model.decoder.query_pos_head.", "decoder.query_pos_head."),
    ("model.decoder.class_embed.", "decoder.dec_score_head."),
    ("model.decoder.bbox_embed.", "decoder.dec_bbox_head."),
    ("model.decoder.layers.*.self_attn_layer_norm.", "decoder.decoder.layers.*.norm1."),
    ("model.decoder.layers.*.encoder_attn_layer_norm.", "decoder.decoder.layers.*.norm2."),
    ("model.decoder.layers.*.final_layer_norm.", "decoder.decoder.layers.*.norm3."),
    ("model.decoder.layers.*.encoder_attn.", "decoder.decoder.layers.*.cross_attn."),
    ("model.decoder.layers.", "decoder.decoder.layers."),
    (".fc1.", ".linear1."),
    (".fc2.", ".linear2."),
)
_HF_IN_MEMORY: tuple[Rename, ...] = (
    # names in memory of transformers 5, which differ from those on disk
    ("model.encoder.aifi.", "model.encoder.encoder."),
    (".self_attn.o_proj.", ".self_attn.out_proj."),
    (".mlp.fc*.", ".fc*."),
    (".mlp.layers.0.", ".fc1."),
    (".mlp.layers.1.", ".fc2."),
)

HUGGING_FACE: tuple[Rename, ...] = (
    *_HF_IN_MEMORY,
    # backbone
    ("model.backbone.model.embedder.embedder.0.", "backbone.conv1.conv1_1."),
    ("model.backbone.model.embedder.embedder.1.", "backbone.conv1.conv1_2."),
    ("model.backbone.model.embedder.embedder.2.", "backbone.conv1.conv1_3."),
    (_HF_STAGE + "layer.0.", _HUB_STAGE + "branch2a."),
    (_HF_STAGE + "layer.1.", _HUB_STAGE + "branch2b."),
    (_HF_STAGE + "layer.2.", _HUB_STAGE + "branch2c."),
    (_HF_STAGE + "shortcut.1.", _HUB_STAGE + "short.conv."),
    (_HF_STAGE + "shortcut.", _HUB_STAGE + "short."),
    (".convolution.", ".conv."),
    (".normalization.", ".norm."),
    *_HF_PARTS,
)

OFFICIAL_HGNETV2: tuple[Rename, ...] = (
    # D-FINE, DEIM and timm pad outside the convolution of the stem
    ("backbone.stem.stem2a.conv.weight", "backbone.stem.stem2a.conv.1.weight"),
    ("backbone.stem.stem2b.conv.weight", "backbone.stem.stem2b.conv.1.weight"),
    (".aggregation.0.", ".aggregation_squeeze_conv."),
    (".aggregation.1.", ".aggregation_excitation_conv."),
)
"""HGNetv2 of D-FINE, DEIM, RT-DETRv4 and DEIMv2; all their other names are hub names."""

HUGGING_FACE_DFINE: tuple[Rename, ...] = (
    *_HF_IN_MEMORY,
    # backbone
    ("model.backbone.model.embedder.", "backbone.stem."),
    ("model.backbone.model.encoder.", "backbone."),
    (".convolution.", ".conv."),
    (".normalization.", ".bn."),
    *OFFICIAL_HGNETV2,
    # encoder
    ("model.encoder.fpn_blocks.*.conv1.", "encoder.fpn_blocks.*.cv1."),
    ("model.encoder.fpn_blocks.*.csp_rep1.", "encoder.fpn_blocks.*.cv2.0."),
    ("model.encoder.fpn_blocks.*.conv2.", "encoder.fpn_blocks.*.cv2.1."),
    ("model.encoder.fpn_blocks.*.csp_rep2.", "encoder.fpn_blocks.*.cv3.0."),
    ("model.encoder.fpn_blocks.*.conv3.", "encoder.fpn_blocks.*.cv3.1."),
    ("model.encoder.fpn_blocks.*.conv4.", "encoder.fpn_blocks.*.cv4."),
    ("model.encoder.pan_blocks.*.conv1.", "encoder.pan_blocks.*.cv1."),
    ("model.encoder.pan_blocks.*.csp_rep1.", "encoder.pan_blocks.*.cv2.0."),
    ("model.encoder.pan_blocks.*.conv2.", "encoder.pan_blocks.*.cv2.1."),
    ("model.encoder.pan_blocks.*.csp_rep2.", "encoder.pan_blocks.*.cv3.0."),
    ("model.encoder.pan_blocks.*.conv3.", "encoder.pan_blocks.*.cv3.1."),
    ("model.encoder.pan_blocks.*.conv4.", "encoder.pan_blocks.*.cv4."),
    ("model.encoder.downsample_convs.*.conv*.", "encoder.downsample_convs.*.0.cv*."),
    # decoder
    ("model.decoder.lqe_layers.", "decoder.decoder.lqe_layers."),
    ("model.decoder.pre_bbox_head.", "decoder.pre_bbox_head."),
    ("model.decoder.reg_scale", "decoder.reg_scale"),
    ("model.decoder.up", "decoder.up"),
    *_HF_PARTS,
)

PADDLE_NAMES: tuple[Rename, ...] = (
    ("._mean", ".running_mean"),
    ("._variance", ".running_var"),
    # Paddle pads inside the convolution of the stem
    ("backbone.stem.stem2a.conv.", "backbone.stem.stem2a.conv.1."),
    ("backbone.stem.stem2b.conv.", "backbone.stem.stem2b.conv.1."),
    # encoder
    ("neck.input_proj.*.0.", "encoder.input_proj.*.conv."),
    ("neck.input_proj.*.1.", "encoder.input_proj.*.norm."),
    ("neck.lateral_convs.*.bn.", "encoder.lateral_convs.*.norm."),
    ("neck.downsample_convs.*.bn.", "encoder.downsample_convs.*.norm."),
    ("neck.fpn_blocks.*.conv*.bn.", "encoder.fpn_blocks.*.conv*.norm."),
    ("neck.pan_blocks.*.conv*.bn.", "encoder.pan_blocks.*.conv*.norm."),
    (_PADDLE_FPN + "bn.", _PADDLE_FPN.replace("neck.", "encoder.") + "norm."),
    (_PADDLE_PAN + "bn.", _PADDLE_PAN.replace("neck.", "encoder.") + "norm."),
    ("neck.", "encoder."),
    # decoder
    ("transformer.enc_output.0.", "decoder.enc_output.proj."),
    ("transformer.enc_output.1.", "decoder.enc_output.norm."),
    ("transformer.", "decoder."),
)
