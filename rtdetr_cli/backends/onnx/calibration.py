"""Measure ranges of activations on real images for INT8, with one histogram per tensor.

ONNX Runtime's histograms keep the bin width of the first image, so a map that is almost zero there
needs 10^8 bins for the next image. These always have 2048 bins.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from rtdetr_cli.backends.onnx.detector import OnnxDetector
from rtdetr_cli.backends.onnx.session import session_options

BINS = 2048
_PART = 1 << 24
"""Largest count that histc represents exactly: its counts are float32."""


class Histogram:
    """Magnitudes of a tensor over all images, in equal bins from 0 to `limit`.

    For larger values, neighbouring bins are merged in pairs and the limit doubles.
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(BINS, dtype=torch.float64)
        self.limit = 0.0
        self.largest = 0.0

    def add(self, values: Tensor) -> None:
        """Count the values of one or more images."""
        magnitudes = values.abs().flatten()
        self.largest = max(self.largest, float(magnitudes.max()))
        self.limit = self.limit or self.largest
        while self.limit < self.largest:
            merged = self.counts.reshape(-1, 2).sum(1)
            self.counts = torch.cat((merged, torch.zeros_like(merged)))
            self.limit *= 2
        for part in magnitudes.split(_PART) if self.limit else ():
            self.counts += part.histc(BINS, 0, self.limit).double()

    def percentile(self, percent: float) -> float:
        """The magnitude that `percent` of the values do not exceed."""
        share = self.counts.cumsum(0) / self.counts.sum().clamp(min=1)
        place = int(torch.searchsorted(share, percent / 100))
        return min((place + 1) / BINS * self.limit, self.largest)


class Observer(OnnxDetector):
    """A detector that also records the values of some tensors.

    Attributes:
        histograms: by tensor, the values on all images so far.
    """

    def __init__(self, path: Path, tensors: Collection[str]) -> None:
        """Open a file by `write_onnx` on the CPU."""
        self.histograms = {name: Histogram() for name in tensors}
        super().__init__(path, "cpu")

    def _open(self, path: Path, device: str | None) -> tuple[Any, str]:
        session = _ObservedSession(path, self.histograms)
        return session, f"ONNX Runtime with observed tensors, {device}"


class _ObservedSession:
    """A session with hidden additional outputs."""

    def __init__(self, path: Path, histograms: dict[str, Histogram]) -> None:
        import onnx
        import onnxruntime

        model = onnx.load(path)
        own = [value.name for value in model.graph.output]
        inputs = {value.name for value in model.graph.input}
        self._histograms, self._count = histograms, len(own)
        self._hidden = [name for name in histograms if name not in {*inputs, *own}]
        kind = onnx.TypeProto(tensor_type=onnx.TypeProto.Tensor(elem_type=1))
        for name in self._hidden:
            model.graph.output.append(onnx.ValueInfoProto(name=name, type=kind))
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
        )
        self.get_inputs, self.get_modelmeta = self._session.get_inputs, self._session.get_modelmeta

    def get_outputs(self) -> list[Any]:
        """The outputs of the file."""
        own: list[Any] = self._session.get_outputs()[: self._count]
        return own

    def run(
        self, names: list[str], feed: dict[str, npt.NDArray[Any]], options: object = None
    ) -> list[npt.NDArray[Any]]:
        """Run the session and count the values of the observed tensors."""
        hidden = self._hidden
        outputs: list[npt.NDArray[Any]] = self._session.run([*hidden, *names], feed, options)
        found = {**feed, **dict(zip([*hidden, *names], outputs, strict=True))}
        for name, histogram in self._histograms.items():
            histogram.add(torch.from_numpy(found[name]))
        return outputs[len(hidden) :]
