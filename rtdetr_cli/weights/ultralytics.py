"""Rename the tensors of layer-numbered networks (`model.12.conv.weight`) of Ultralytics.

The numbers depend on the depth of the backbone, so the parts are found from the order of the kinds
of layers, which is the same in every RT-DETR with an HGNetv2 backbone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from rtdetr_cli.core.errors import WeightsError

# Letter of a kind of layer, and a name that only this kind contains.
_KINDS = (
    ("S", "stem1."),
    ("B", "sc."),
    ("A", "ma."),
    ("P", "cv1."),
    ("T", "enc_output."),
    ("C", "conv."),
)

# Stem, four stages of HG blocks with Down-sampling between them, AIFI, CCFF (Convs, CSP blocks P),
# head (T). Layers without tensors (up-sampling, concatenation) only leave gaps in the numbers.
_ORDER = re.compile(r"S(B+)D(B+)D(B+)D(B+)C(A+)CCPCCPCPCPT")

_CCFF = (
    "encoder.lateral_convs.0",
    "encoder.input_proj.1",
    "encoder.fpn_blocks.0",
    "encoder.lateral_convs.1",
    "encoder.input_proj.0",
    "encoder.fpn_blocks.1",
    "encoder.downsample_convs.0",
    "encoder.pan_blocks.0",
    "encoder.downsample_convs.1",
    "encoder.pan_blocks.1",
)

# Names inside a layer, by kind: foreign pattern and hub replacement, in order.
_INSIDE: dict[str, tuple[tuple[str, str], ...]] = {
    "S": ((r"^(stem2[ab])\.conv\.", r"\1.conv.1."),),
    "B": (
        (r"^m\.", "layers."),
        (r"^sc\.", "aggregation_squeeze_conv."),
        (r"^ec\.", "aggregation_excitation_conv."),
    ),
    "D": (),
    "C": ((r"^bn\.", "norm."),),
    "P": ((r"^cv", "conv"), (r"^m\.", "bottlenecks."), (r"\.bn\.", ".norm.")),
    "A": ((r"^ma\.", "self_attn."), (r"^fc", "linear")),
    "T": (
        (r"^(input_proj\.\d+)\.0\.", r"\1.conv."),
        (r"^(input_proj\.\d+)\.1\.", r"\1.norm."),
        (r"^enc_output\.0\.", "enc_output.proj."),
        (r"^enc_output\.1\.", "enc_output.norm."),
    ),
}


def hub_names(state: Mapping[str, Tensor], origin: str) -> dict[str, str]:
    """Foreign name -> hub name for every key of a layer-numbered state dict.

    Raises:
        WeightsError: The layers are those of another network.
    """
    layers = _by_layer(state, origin)
    parts = layer_parts(state, origin)
    names = {}
    for index, tensors in layers.items():
        kind = _kind(tensors)
        for name in tensors:
            names[f"model.{index}.{name}"] = f"{parts[index]}.{_inside(kind, name)}"
    return names


def layer_parts(state: Mapping[str, Tensor], origin: str) -> dict[int, str]:
    """Number of each layer that has tensors -> hub name of that part."""
    kinds = {index: _kind(tensors) for index, tensors in _by_layer(state, origin).items()}
    return dict(zip(kinds, _parts_in_order("".join(kinds.values()), origin), strict=True))


def restore_norms(state: Mapping[str, Tensor], norm_eps: float) -> dict[str, Tensor]:
    """Undo fusing: return unfused tensors that compute the same function in eval mode.

    A convolution with a bias gets a norm that only adds this bias; the fused kernel of a RepConv
    becomes its 3x3 branch, next to a 1x1 branch of zeros.

    Args:
        state: layer-numbered tensors, all or some of them fused.
        norm_eps: epsilon of the network's norms.
    """
    restored: dict[str, Tensor] = {}
    for key, tensor in state.items():
        stem, _, kind = key.rpartition(".conv.")
        bias = state.get(f"{stem}.conv.bias") if stem else None
        if bias is None:
            restored[key] = tensor
        elif kind == "weight":
            restored |= _with_norms(stem, tensor, bias, norm_eps, _is_rep_conv(stem, state))
    return restored


def _is_rep_conv(stem: str, state: Mapping[str, Tensor]) -> bool:
    """Whether a fused convolution `model.N.m.I` is in a CSP block rather than an HG block."""
    layer, _, inside = stem.partition(".m.")
    return inside.isdecimal() and f"{layer}.cv1.conv.weight" in state


def _with_norms(
    stem: str, kernel: Tensor, bias: Tensor, norm_eps: float, is_rep_conv: bool
) -> dict[str, Tensor]:
    if not is_rep_conv:
        return {f"{stem}.conv.weight": kernel, **_neutral_norm(f"{stem}.bn", bias, norm_eps)}
    return {
        f"{stem}.conv1.conv.weight": kernel,
        **_neutral_norm(f"{stem}.conv1.bn", bias, norm_eps),
        f"{stem}.conv2.conv.weight": torch.zeros_like(kernel[:, :, :1, :1]),
        **_neutral_norm(f"{stem}.conv2.bn", torch.zeros_like(bias), norm_eps),
    }


def _neutral_norm(name: str, bias: Tensor, norm_eps: float) -> dict[str, Tensor]:
    """A norm of scale 1, as variance plus epsilon is 1, that adds `bias`."""
    return {
        f"{name}.weight": torch.ones_like(bias),
        f"{name}.bias": bias,
        f"{name}.running_mean": torch.zeros_like(bias),
        f"{name}.running_var": torch.full_like(bias, 1 - norm_eps),
    }


def _by_layer(state: Mapping[str, Tensor], origin: str) -> dict[int, dict[str, Tensor]]:
    layers: dict[int, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        parts = re.fullmatch(r"model\.(\d{1,4})\.(.+)", key)
        if parts is None:
            raise WeightsError(f"{origin} is layer-numbered but has a tensor {key}")
        layers.setdefault(int(parts[1]), {})[parts[2]] = tensor
    return dict(sorted(layers.items()))


def _parts_in_order(kinds: str, origin: str) -> Iterator[str]:
    """Hub name of each layer, from the string of their kinds."""
    order = _ORDER.fullmatch(kinds)
    if order is None:
        network = (
            "the ResNet of Ultralytics, a different network from the official R50 and R101"
            if kinds.startswith("?")
            else "layer-numbered, but not an RT-DETR with an HGNetv2 backbone"
        )
        raise WeightsError(f"{origin} is {network}")
    yield "backbone.stem"
    for stage in range(4):
        if stage:
            yield f"backbone.stages.{stage}.downsample"
        yield from (f"backbone.stages.{stage}.blocks.{i}" for i in range(len(order[stage + 1])))
    yield "encoder.input_proj.2"
    yield from (f"encoder.encoder.0.layers.{i}" for i in range(len(order[5])))
    yield from _CCFF
    yield "decoder"


def _kind(tensors: Mapping[str, Tensor]) -> str:
    """The letter of the kind of a layer; `?` if unknown."""
    for letter, name in _KINDS:
        if any(key.startswith(name) for key in tensors):
            weight = tensors.get("conv.weight")
            depthwise = weight is not None and weight.shape[1:2] == (1,)
            return "D" if letter == "C" and depthwise else letter
    return "?"


def _inside(kind: str, name: str) -> str:
    for pattern, replacement in _INSIDE[kind]:
        name = re.sub(pattern, replacement, name)
    return name
