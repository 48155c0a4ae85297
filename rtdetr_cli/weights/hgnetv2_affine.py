"""Fold the learnable affine blocks of HGNetv2 B0 to B3 into the neighbouring convolutions.

Such a block computes s * x + b after a ReLU, with one s and one b for all channels; HGNetv2 in
RT-DETR has none, unlike that of D-FINE and DEIMv2. Scales fold exactly; shifts too, except at the
border of the image, where a padded convolution reads 0 instead of b.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from rtdetr_cli.config.model import HGNetv2Config, HGStage

_SIGN = ".lab."


class Affine(NamedTuple):
    """A map of the file equals `scale` times our map plus `shift`."""

    scale: float
    shift: float


class Part(NamedTuple):
    """A group of input channels of a convolution, and their affine."""

    channels: int
    affine: Affine


IDENTITY = Affine(1.0, 0.0)


def fold_affine_blocks(weights: dict[str, Tensor], config: HGNetv2Config) -> dict[str, Tensor]:
    """Convert a backbone to one without affine blocks.

    Each map of the result is (map of the file - shift) / scale, with a scale and shift per map.

    Args:
        weights: a complete backbone by hub names, with `.lab.scale` and `.lab.bias` of one value.
        config: its architecture.

    Raises:
        ValueError: A scale has a sign that cannot be folded into a convolution.
    """
    return _Folding(weights).run(config)


class _Folding:
    """Visit the convolutions of HGNetv2 in the order of the forward pass."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.affine = {name: tensor for name, tensor in weights.items() if _SIGN in name}
        self.weights = {
            name: tensor.clone() for name, tensor in weights.items() if name not in self.affine
        }

    def run(self, config: HGNetv2Config) -> dict[str, Tensor]:
        width = config.stem[1]
        here = self._stem(config.stem[0])
        for index, stage in enumerate(config.stages):
            prefix = f"backbone.stages.{index}."
            if index:
                here = self._conv(f"{prefix}downsample", [Part(width, here)])
            for block in range(stage.blocks):
                here = self._block(f"{prefix}blocks.{block}.", stage, Part(width, here), block > 0)
                width = stage.out
        return self.weights

    def _stem(self, mid: int) -> Affine:
        prefix = "backbone.stem."
        first = self._conv(f"{prefix}stem1", [Part(3, IDENTITY)])
        _require_positive(first.scale, f"{prefix}stem1")  # else max-pool becomes min-pool
        second = self._conv(f"{prefix}stem2a", [Part(mid, first)])
        second = self._conv(f"{prefix}stem2b", [Part(mid // 2, second)])
        third = self._conv(f"{prefix}stem3", [Part(mid, first), Part(mid, second)])
        return self._conv(f"{prefix}stem4", [Part(mid, third)])

    def _block(self, prefix: str, stage: HGStage, entering: Part, is_residual: bool) -> Affine:
        parts = [entering]
        for layer in range(stage.layers):
            name = f"{prefix}layers.{layer}"
            if stage.light:
                narrow = self._conv(f"{name}.conv1", parts[-1:])
                left = self._conv(f"{name}.conv2", [Part(stage.mid, narrow)])
            else:
                left = self._conv(name, parts[-1:])
            parts.append(Part(stage.mid, left))
        squeezed = self._conv(f"{prefix}aggregation_squeeze_conv", parts)
        last = f"{prefix}aggregation_excitation_conv"
        left = self._conv(last, [Part(stage.out // 2, squeezed)])
        return self._add(last, left, entering.affine) if is_residual else left

    def _conv(self, name: str, parts: list[Part]) -> Affine:
        """Fold the affines of the inputs into a convolution; return the affine of its output."""
        key = f"{name}.conv.weight"
        key = key if key in self.weights else f"{name}.conv.1.weight"
        kernel = self.weights[key]  # (out, in, k, k); depthwise: (out, 1, k, k)
        start = 0
        for channels, (scale, shift) in parts:
            chosen = kernel[:, start : start + channels]
            self.weights[f"{name}.bn.running_mean"] -= shift * chosen.sum(dim=(1, 2, 3))
            chosen *= scale
            start += channels
        if f"{name}.lab.scale" not in self.affine:
            return IDENTITY
        return Affine(*(self.affine[f"{name}.lab.{kind}"].item() for kind in ("scale", "bias")))

    def _add(self, name: str, left: Affine, entering: Affine) -> Affine:
        """A residual sum: rescale the branch to the scale of its input."""
        _require_positive(left.scale * entering.scale, name)
        for kind in ("weight", "bias"):
            self.weights[f"{name}.bn.{kind}"] *= left.scale / entering.scale
        return Affine(entering.scale, entering.shift + left.shift)


def _require_positive(scale: float, name: str) -> None:
    if not 0 < scale < float("inf"):
        raise ValueError(f"{name}.lab.scale has a sign that cannot be folded")
