"""Images into a graph by its contract and detections out of it, whatever runtime computes it.

What a graph answers is checked here: it may be anyone's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rtdetr_cli.backends.contract import Contract
from rtdetr_cli.core.console import warn
from rtdetr_cli.core.errors import BackendError, WeightsError
from rtdetr_cli.core.structures import Detections
from rtdetr_cli.weights.plausible import MAX_COUNT

Feed = dict[str, npt.NDArray[Any]]
"""Inputs of a graph by name."""
_FAR = 4.0
"""Longer sides of the image that a box may be outside; decoders end at half a one."""
_ROUNDING = 1e-3
"""Of scores in 16 bits, which may exceed 1."""


@dataclass
class OutputFilter:
    """Leaves out detections that cannot be true; each kind is named once per file.

    Attributes:
        file: its name, for the warning.
        names: of the classes 0, 1, 2...
        whose: the names are, for the warning.
    """

    file: str
    names: Mapping[int, str]
    whose: str
    _named: set[str] = field(default_factory=set, init=False)

    def sound(self, found: Detections, size_hw: tuple[int, int]) -> Detections:
        """Those of a class that has a name, with a score in 0..1 and a box near the image."""
        is_class = (found.labels >= 0) & (found.labels < len(self.names))
        is_score = (found.scores >= 0) & (found.scores <= 1 + _ROUNDING)  # neither holds for NaN
        boxes, limit = found.boxes_xyxy, _FAR * max(size_hw)
        is_box = ((boxes >= -limit) & (boxes <= max(size_hw) + limit)).all(dim=1)
        keep = is_class & is_score & is_box
        if bool(keep.all()):
            return found
        if not bool(is_class.all()):
            label = int(found.labels[~is_class][0])
            self._name("class", f"class {label}: {self.whose} end at {len(self.names) - 1}")
        if not bool(is_score.all()):
            self._name("score", f"a score of {float(found.scores[~is_score][0]):g}")
        if not bool(is_box.all()):
            box = ", ".join(f"{side:g}" for side in boxes[~is_box][0].tolist())
            height, width = size_hw
            self._name("box", f"a box [{box}] for an image of {width}x{height}")
        return found.keep(keep)

    def _name(self, kind: str, what: str) -> None:
        if kind not in self._named:
            self._named.add(kind)
            warn(f"{self.file} answers with {what}; such detections are left out")


def detect_in_parts(
    contract: Contract,
    images: Tensor,
    sizes_hw: list[tuple[int, int]],
    max_det: int,
    run: Callable[[Feed], Sequence[Any]],
    output_filter: OutputFilter,
) -> list[Detections]:
    """Find objects with a graph; where its batch is fixed, part by part.

    Args:
        contract: of the graph.
        images: (B, 3, H, W) float RGB in 0..1.
        sizes_hw: (height, width) in pixels of each original image.
        max_det: most detections per image.
        run: inputs by name to outputs in the order of the contract, arrays as a rule.
        output_filter: of the file.

    Raises:
        WeightsError: the outputs are no numbers, or of other shapes than the contract's.
    """
    pixels = contract.to_input(images.detach().float().cpu()).numpy()
    step = contract.batch or max(len(pixels), 1)
    found: list[Detections] = []
    for start in range(0, len(pixels), step):
        sizes = sizes_hw[start : start + step]
        feed = _feed(contract, pixels[start : start + step], sizes)
        answers = _as_tensors(contract, run(feed), output_filter.file)
        _check_shapes(contract, answers, len(feed[contract.image]), output_filter.file)
        found += _decode(contract, answers, sizes, max_det, output_filter)
    return found


def _feed(contract: Contract, pixels: npt.NDArray[Any], sizes_hw: list[tuple[int, int]]) -> Feed:
    """Inputs by name; images are repeated up to the size of a fixed batch."""
    filled = np.minimum(np.arange(contract.batch or len(pixels)), len(pixels) - 1)
    feed: Feed = {contract.image: pixels[filled] if contract.batch else pixels}
    if contract.sizes:
        sizes_wh = [(width, height) for height, width in sizes_hw]
        feed[contract.sizes] = np.array(sizes_wh, np.int64)[filled]
    return feed


def _as_tensors(contract: Contract, answers: Sequence[Any], file: str) -> list[Tensor]:
    """Labels as int64, all else as float32."""
    tensors = []
    for name, answer in zip(contract.outputs, answers, strict=True):
        is_label = name == "labels"
        kinds, dtype = ("iu", np.int64) if is_label else ("fiu", np.float32)
        if not isinstance(answer, np.ndarray | np.generic) or answer.dtype.kind not in kinds:
            kind = getattr(answer, "dtype", type(answer).__name__)
            expected = "whole numbers" if is_label else "numbers"
            raise WeightsError(f"{file} gives {name} as {kind}; expected are {expected}")
        with np.errstate(over="ignore"):
            tensors.append(torch.from_numpy(np.require(answer, dtype, ["C", "W"])))
    return tensors


def _check_shapes(contract: Contract, answers: list[Tensor], batch: int, file: str) -> None:
    """Rows of one number in all outputs, for each image of the batch."""
    shapes = [tuple(answer.shape) for answer in answers]
    expected = contract.expected_shapes(answers, batch)
    if shapes != expected:
        given, right = (
            ", ".join(f"{name} {list(s)}" for name, s in zip(contract.outputs, side, strict=True))
            for side in (shapes, expected)
        )
        raise WeightsError(f"{file} gives {given} for {batch} images; expected is {right}")


def _decode(
    contract: Contract,
    answers: list[Tensor],
    sizes_hw: list[tuple[int, int]],
    max_det: int,
    output_filter: OutputFilter,
) -> list[Detections]:
    """The best detections that can be true."""
    found = contract.decode(answers, sizes_hw, max_det)
    sound = list(map(output_filter.sound, found, sizes_hw))
    if list(map(len, sound)) == list(map(len, found)):
        return sound
    # NaN is sorted before every score, and what is left out took the place of others.
    found = contract.decode(answers, sizes_hw, MAX_COUNT)
    sound = list(map(output_filter.sound, found, sizes_hw))
    return [one.keep(torch.arange(min(len(one), max_det))) for one in sound]


def too_slow(file: str, count: int, timeout: float) -> BackendError:
    """The error of a graph that was stopped."""
    return BackendError(
        f"{file} did not finish {count} images in {count * timeout:g} s (timeout={timeout:g} "
        "for each)"
    )
