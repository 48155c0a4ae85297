"""Generated files of other families: filled state dicts and a pickled module."""

from __future__ import annotations

import json
import lzma
import pickle
import re
import sys
import zlib
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from rtdetr_cli.config.model import (
    DecoderConfig,
    EncoderConfig,
    HGStage,
    ModelConfig,
    Preprocessing,
)
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint

FIXTURES = Path(__file__).parent / "fixtures"


def fill(name, shape):
    """The parity kit's rule: a reproducible float64 tensor for a name of the file's own family."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    shape = tuple(shape)
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("running_var"):
        values = generator.uniform(0.5, 1.5, shape)
    elif name.endswith("running_mean"):
        values = generator.normal(0.0, 0.1, shape)
    elif len(shape) >= 2:
        gain = 1.2 if len(shape) == 4 else 1.0
        values = generator.normal(0.0, (gain / np.prod(shape[1:])) ** 0.5, shape)
    elif name.endswith(("weight", ".scale")):
        values = generator.uniform(0.8, 1.2, shape)
    else:
        values = generator.normal(0.0, 0.1, shape)
    return torch.from_numpy(values)


def image(height, width):
    """The parity kit's image: (1, 3, H, W) float64 in 0..1, smooth blobs plus noise."""
    generator = np.random.Generator(np.random.PCG64(7))
    y, x = np.mgrid[0:height, 0:width]
    out = np.zeros((3, height, width))
    for channel in range(3):
        for _ in range(12):
            cy, cx = generator.uniform(0, height), generator.uniform(0, width)
            spread, peak = generator.uniform(0.03, 0.2) * height, generator.uniform(0.2, 1)
            squared = (y - cy) ** 2 + (x - cx) ** 2
            out[channel] += peak * np.exp(-squared / (2 * spread * spread))
    out = out / out.max() * 0.9 + 0.1 * generator.random(out.shape)
    return torch.from_numpy(np.clip(out, 0, 0.999999)[None])


@cache
def foreign_shapes():
    """Name and shape of every tensor of networks built by their own families, 80 classes."""
    return json.loads(lzma.decompress((FIXTURES / "foreign_states.json.xz").read_bytes()))


def constants(shapes):
    """What the families build and do not train: the scales of points, `up` and `reg_scale`.

    `reg_scale` is 4, and 8 in D-FINE-X, the one with an encoder 384 wide; int64 in official files.
    """
    is_refined = any("pre_bbox_head" in name for name in shapes)
    levels = {name[:26] for name in shapes if "encoder_input_proj." in name} or {
        name[:20] for name in shapes if name.startswith("encoder.input_proj.")
    }
    points = {1: (4, 2), 2: (6, 6), 3: (3, 6, 3)}[len(levels)] if is_refined else (4, 4, 4)
    is_wide = shapes.get("encoder.input_proj.0.conv.weight", [0])[0] == 384
    found = {}
    for name in shapes:
        if name.endswith("points_scale"):
            found[name] = torch.tensor([1 / n for n in points for _ in range(n)])
        elif name.endswith("decoder.up"):
            found[name] = torch.tensor([0.5])
        elif name.endswith("decoder.reg_scale"):
            kind = torch.float32 if name.startswith("model.") else torch.int64
            found[name] = torch.tensor([8 if is_wide else 4], dtype=kind)
    return found


def filled_state(shapes):
    """A state dict with the rule's weights and the family's constants.

    Box heads that DEIMv2 shares are one module under three names; the last name filled it.
    """
    names = [name for name in shapes if not name.endswith(("anchors", "valid_mask"))]
    known = constants(shapes)
    state = {name: known[name] if name in known else fill(name, shapes[name]) for name in names}
    if "encoder.down_sample1.1.weight" in shapes:
        for name in names:
            if name.startswith("decoder.dec_bbox_head."):
                state[name] = state[f"decoder.dec_bbox_head.2.{name[24:]}"]
    return state


def meta_state(shapes):
    """The same names and shapes without values, but for those that say something.

    These are constants, and box heads, which DEIMv2 shares between layers or not.
    """
    is_shared = "encoder.down_sample1.1.weight" in shapes
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    for name in shapes:
        if name.startswith("decoder.dec_bbox_head.") and "swish_ffn" in " ".join(shapes):
            state[name] = torch.full(shapes[name], 1.0 if is_shared else float(name[22]))
    return state | constants(shapes)


@pytest.fixture
def edited_config(tiny_config):
    """A custom network: depths, kernels, layers and widths that no shipped one has, 8 heads."""
    return ModelConfig(
        name="rtdetr-custom",
        backbone=type(tiny_config.backbone)(
            stem=(6, 10),
            stages=(
                HGStage(mid=4, out=8, blocks=2, layers=2),
                HGStage(mid=6, out=12, blocks=1, layers=3),
                HGStage(mid=8, out=16, blocks=3, kernel=5, layers=2, light=True),
                HGStage(mid=8, out=24, blocks=2, kernel=7, layers=2, light=True),
            ),
        ),
        encoder=EncoderConfig(hidden_dim=16, ffn_dim=24, num_csp_blocks=2),
        decoder=DecoderConfig(hidden_dim=24, ffn_dim=40, num_layers=4),
    )


def forward_fuse(_module, x):
    """Stands in for the method that a fused module of Ultralytics calls; never run."""
    return x


class LayerNumbered:
    """Builds and saves a module as Ultralytics does, with classes that exist only meanwhile."""

    classes = (
        *("RTDETRDetectionModel", "HGStem", "HGBlock", "DWConv", "Conv", "LightConv", "AIFI"),
        *("RepC3", "RepConv", "Concat", "RTDETRDecoder", "DeformableTransformerDecoder"),
        *("DeformableTransformerDecoderLayer", "MSDeformAttn", "MLP"),
    )

    def __init__(self, patch):
        modules = {name: ModuleType(name) for name in ("ultralytics", "ultralytics.nn")}
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        for name in self.classes:
            methods = {"__module__": "ultralytics.nn", "forward_fuse": forward_fuse}
            kind = type(name, (nn.Module,), methods)
            setattr(modules["ultralytics.nn"], name, kind)
        self.nn = modules["ultralytics.nn"]

    def part(self, name, **contents):
        module = getattr(self.nn, name)()
        for key, value in contents.items():
            setattr(module, key, value)
        return module

    def conv(self, sizes, kernel, act=None, groups=1, name="Conv"):
        conv = nn.Conv2d(*sizes, kernel, groups=groups, bias=False)
        norm = nn.BatchNorm2d(sizes[1], eps=1e-3)
        return self.part(name, conv=conv, bn=norm, act=act or nn.Identity())

    def stem(self, middle, out):
        sizes = {
            "stem1": (3, middle, 3),
            "stem2a": (middle, middle // 2, 2),
            "stem2b": (middle // 2, middle, 2),
            "stem3": (2 * middle, middle, 3),
            "stem4": (middle, out, 1),
        }
        convs = {name: self.conv((a, b), kernel) for name, (a, b, kernel) in sizes.items()}
        return self.part("HGStem", **convs)

    def block(self, into, stage, is_first):
        convs = []
        for layer in range(stage.layers):
            sizes = (stage.mid if layer else into, stage.mid)
            if stage.light:
                narrow = self.conv(sizes, 1)
                deep = self.conv((stage.mid, stage.mid), stage.kernel, groups=stage.mid)
                convs.append(self.part("LightConv", conv1=narrow, conv2=deep))
            else:
                convs.append(self.conv(sizes, stage.kernel))
        squeeze = self.conv((into + stage.layers * stage.mid, stage.out // 2), 1)
        excite = self.conv((stage.out // 2, stage.out), 1)
        parts = {"m": nn.ModuleList(convs), "sc": squeeze, "ec": excite}
        return self.part("HGBlock", **parts, add=not is_first)

    def backbone(self, config):
        layers, into = [self.stem(*config.stem)], config.stem[1]
        for index, stage in enumerate(config.stages):
            if index:
                layers.append(self.conv((into, into), 3, groups=into, name="DWConv"))
            for block in range(stage.blocks):
                layers.append(self.block(into, stage, is_first=block == 0))
                into = stage.out
        return layers

    def aifi(self, config):
        width = config.hidden_dim
        return self.part(
            "AIFI",
            ma=nn.MultiheadAttention(width, config.num_heads),
            fc1=nn.Linear(width, config.ffn_dim),
            fc2=nn.Linear(config.ffn_dim, width),
            norm1=nn.LayerNorm(width),
            norm2=nn.LayerNorm(width),
        )

    def csp(self, config):
        width = config.hidden_dim
        blocks = [
            self.part(
                "RepConv", conv1=self.conv((width, width), 3), conv2=self.conv((width, width), 1)
            )
            for _ in range(config.num_csp_blocks)
        ]
        sides = {f"cv{i}": self.conv((2 * width, width), 1, nn.SiLU()) for i in (1, 2)}
        return self.part("RepC3", **sides, m=nn.Sequential(*blocks))

    def neck(self, config, maps):
        width = config.hidden_dim

        def lateral():
            return self.conv((width, width), 1, nn.SiLU())

        def down():
            return self.conv((width, width), 3, nn.SiLU())

        return [
            self.conv((maps[2], width), 1),
            *(self.aifi(config) for _ in range(config.num_layers)),
            lateral(),
            nn.Upsample(),
            self.conv((maps[1], width), 1),
            self.part("Concat"),
            self.csp(config),
            lateral(),
            nn.Upsample(),
            self.conv((maps[0], width), 1),
            self.part("Concat"),
            self.csp(config),
            down(),
            self.part("Concat"),
            self.csp(config),
            down(),
            self.part("Concat"),
            self.csp(config),
        ]

    def mlp(self, *widths):
        pairs = pairwise(widths)
        return self.part("MLP", layers=nn.ModuleList(nn.Linear(*pair) for pair in pairs))

    def decoder_layer(self, config):
        width, offsets = config.hidden_dim, config.num_heads * sum(config.num_points)
        cross = {
            "sampling_offsets": nn.Linear(width, 2 * offsets),
            "attention_weights": nn.Linear(width, offsets),
            "value_proj": nn.Linear(width, width),
            "output_proj": nn.Linear(width, width),
        }
        return self.part(
            "DeformableTransformerDecoderLayer",
            self_attn=nn.MultiheadAttention(width, config.num_heads),
            norm1=nn.LayerNorm(width),
            cross_attn=self.part("MSDeformAttn", **cross),
            norm2=nn.LayerNorm(width),
            linear1=nn.Linear(width, config.ffn_dim),
            linear2=nn.Linear(config.ffn_dim, width),
            norm3=nn.LayerNorm(width),
        )

    def head(self, config, into, num_classes):
        width, count = config.hidden_dim, config.num_layers
        projections = [
            nn.Sequential(nn.Conv2d(into, width, 1, bias=False), nn.BatchNorm2d(width, eps=1e-3))
            for _ in range(3)
        ]
        layers = nn.ModuleList(self.decoder_layer(config) for _ in range(count))
        stack = self.part(
            "DeformableTransformerDecoder",
            layers=layers,
            num_layers=count,
            eval_idx=(config.eval_layers or count) - 1,
        )
        return self.part(
            "RTDETRDecoder",
            input_proj=nn.ModuleList(projections),
            decoder=stack,
            denoising_class_embed=nn.Embedding(num_classes, width),
            query_pos_head=self.mlp(4, 2 * width, width),
            enc_output=nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width)),
            enc_score_head=nn.Linear(width, num_classes),
            enc_bbox_head=self.mlp(width, width, width, 4),
            dec_score_head=nn.ModuleList(nn.Linear(width, num_classes) for _ in range(count)),
            dec_bbox_head=nn.ModuleList(self.mlp(width, width, width, 4) for _ in range(count)),
            num_queries=config.num_queries,
            nhead=config.num_heads,
        )

    def model(self, config, names):
        maps = [stage.out for stage in config.backbone.stages[1:]]
        layers = [
            *self.backbone(config.backbone),
            *self.neck(config.encoder, maps),
            self.head(config.decoder, config.encoder.hidden_dim, len(names)),
        ]
        return self.part(
            "RTDETRDetectionModel",
            model=nn.Sequential(*layers),
            names=dict(enumerate(names)),
            nc=len(names),
        )


def fuse_as_ultralytics(model):
    """Fold the norms of a layer-numbered module but for the three of `input_proj`, in place.

    As its `fuse()` leaves it: `conv` with a bias, no `bn`, one 3x3 kernel in a RepConv, and
    `forward` set to another method of the module.
    """
    for module in list(model.modules()):
        kind = type(module).__name__
        if kind in {"Conv", "DWConv"} and hasattr(module, "bn"):
            module.conv = nn.utils.fuse_conv_bn_eval(module.conv.eval(), module.bn.eval())
            del module.bn
            module.forward = module.forward_fuse
    for module in model.modules():
        if type(module).__name__ == "RepConv":
            wide, narrow = module.conv1.conv, module.conv2.conv
            with torch.no_grad():
                wide.weight += nn.functional.pad(narrow.weight, (1, 1, 1, 1))
                wide.bias += narrow.bias
            module.conv = wide
            del module.conv1, module.conv2
            module.forward = module.forward_fuse
    return model


def paddle_name(name):
    """What Paddle calls a tensor of the official v2 code (reference/key-maps.md, section 7)."""
    name = name.replace("running_mean", "_mean").replace("running_var", "_variance")
    block = re.match(r"backbone\.res_layers\.(\d)\.blocks\.(\d+)\.(.*)", name)
    if block:
        stage, index, rest = int(block[1]) + 2, int(block[2]), block[3]
        return f"backbone.res{stage}.res{stage}{chr(ord('a') + index)}.{rest}"
    name = re.sub(r"(stem2[ab]\.conv)\.1\.", r"\1.", name)
    for part, numbered in (("conv", "0"), ("norm", "1")):
        name = re.sub(
            rf"^encoder\.input_proj\.(\d)\.{part}", rf"neck.input_proj.\1.{numbered}", name
        )
    name = name.replace("decoder.enc_output.proj", "transformer.enc_output.0")
    name = name.replace("decoder.enc_output.norm", "transformer.enc_output.1")
    name = re.sub(r"^decoder\.", "transformer.", name)
    if re.match(r"encoder\.(lateral|downsample|fpn|pan)", name):
        name = name.replace(".norm.", ".bn.")
    return re.sub(r"^encoder\.", "neck.", name)


def paddle_arrays(state):
    """An official v2 state dict as Paddle holds it: arrays, linear weights as (in, out)."""
    arrays = {}
    for name, tensor in state.items():
        if name.endswith(("num_batches_tracked", "points_scale", "anchors", "valid_mask")):
            continue
        array = tensor.numpy()
        if name == "decoder.denoising_class_embed.weight":
            array = array[:-1]
        elif array.ndim == 2:
            array = np.ascontiguousarray(array.T)
        arrays[paddle_name(name)] = array
    return arrays


def write_paddle(path, state, protocol=4):
    """A `.pdparams` as paddle.save writes it."""
    arrays = paddle_arrays(state)
    table = {"StructuredToParameterName@@": {name: f"w_{i}" for i, name in enumerate(arrays)}}
    path.write_bytes(pickle.dumps(arrays | table, protocol))
    return path


@pytest.fixture
def checkpoint(edited_config):
    """A checkpoint in which every field differs from its default."""
    torch.manual_seed(0)
    config = replace(edited_config, norm_eps=1e-3)
    weights = RTDETRNetwork(config, 2).state_dict()
    names, notes = {0: "Brötchen", 1: "cup"}, ("license: AGPL-3.0",)
    images = Preprocessing((320, 416), antialias=False)
    return Checkpoint(config, names, weights, images, origin="a test", notes=notes)


@pytest.fixture
def layer_numbered(monkeypatch):
    return LayerNumbered(monkeypatch)


@pytest.fixture
def kit():
    """The parity kit's rules as functions."""
    return SimpleNamespace(
        image=image,
        shapes=foreign_shapes(),
        filled_state=filled_state,
        meta_state=meta_state,
        fuse=fuse_as_ultralytics,
        paddle_name=paddle_name,
        write_paddle=write_paddle,
    )
