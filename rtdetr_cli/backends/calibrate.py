"""Ranges of activations on real pictures, for quantize.py: one histogram for each tensor.

ONNX Runtime's own histograms keep all pictures' maps in memory or bin them with NumPy, at a
hundred times the cost of the network (docs/export.md); these are merged picture by picture.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from rtdetr_cli.backends.quantize import LEVELS

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

BINS = 4096
_CANDIDATES = 128


class Histogram:
    """Values of a tensor over all pictures, in equal bins from -limit to limit.

    Where a larger value comes two bins become one and the limit doubles.
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(BINS, dtype=torch.float64)
        self.limit = 0.0
        self.largest = 0.0

    def add(self, values: Tensor) -> None:
        """Count the values of one picture."""
        largest = float(values.abs().max())
        self.largest = max(self.largest, largest)
        self.limit = self.limit or largest
        while self.limit < largest:
            merged = self.counts.reshape(-1, 2).sum(1)
            self.counts = F.pad(merged, (BINS // 4, BINS // 4))
            self.limit *= 2
        if self.limit:
            self.counts += torch.histc(values, BINS, -self.limit, self.limit).double()

    def percentile(self, percent: float) -> float:
        """The magnitude that so many per cent of the values do not exceed."""
        magnitudes = self.counts[BINS // 2 :] + self.counts[: BINS // 2].flip(0)
        share = magnitudes.cumsum(0) / magnitudes.sum().clamp(min=1)
        place = int(torch.searchsorted(share, percent / 100))
        return min((place + 1) / (BINS // 2) * self.limit, self.largest)

    def least_error(self, function: Callable[[Tensor], Tensor] | None = None) -> float:
        """The magnitude to represent as 127, so that the squared error of rounding is least.

        Args:
            function: what reads the tensor; None: the values themselves count.
        """
        function = function or (lambda x: x)
        centres = ((torch.arange(BINS) + 0.5) / BINS * 2 - 1).double() * self.limit
        candidates = self.largest * torch.arange(1, _CANDIDATES + 1).double() / _CANDIDATES
        scales = candidates[:, None] / LEVELS  # (candidates, 1)
        rounded = (centres / scales).round().clamp(-LEVELS, LEVELS) * scales
        errors = ((function(rounded) - function(centres)) ** 2 * self.counts).sum(1)
        return float(candidates[errors.argmin()])


def measure(
    model: ModelProto, tensors: Collection[str], pictures: Iterable[Tensor]
) -> dict[str, Histogram]:
    """Run a float graph over pictures.

    Args:
        model: as `write_onnx` wrote it.
        tensors: those to measure.
        pictures: (3, H, W) float RGB in 0..1, prepared as at inference.
    """
    session = _observed(model, tensors)
    known = {value.name for value in session.get_inputs()}
    names = sorted(set(tensors) - known)
    histograms = {name: Histogram() for name in tensors}
    for picture in pictures:
        pixels = picture[None].numpy()
        sizes: npt.NDArray[np.int64] = np.array([picture.shape[:0:-1]], np.int64)
        feed = {"images": pixels, "orig_target_sizes": sizes}
        feed = {name: value for name, value in feed.items() if name in known}
        found = dict(zip(names, session.run(names, feed), strict=True)) | feed
        for name, histogram in histograms.items():
            histogram.add(torch.from_numpy(found[name]))
    return histograms


def _observed(model: ModelProto, tensors: Collection[str]) -> InferenceSession:
    """The graph with more outputs; nothing is fused, so that every tensor exists."""
    import onnxruntime
    from onnx import ModelProto, TypeProto, ValueInfoProto

    observed = ModelProto()
    observed.CopyFrom(model)
    given = {value.name for value in (*model.graph.input, *model.graph.output)}
    kind = TypeProto(tensor_type=TypeProto.Tensor(elem_type=1))
    for name in sorted(set(tensors) - given):
        observed.graph.output.append(ValueInfoProto(name=name, type=kind))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(
        observed.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
