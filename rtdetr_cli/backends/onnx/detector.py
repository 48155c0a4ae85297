"""ONNX: writes a network with its post-processing as one graph, and runs such graphs.

The contract is that of the official export. In: `images` (B, 3, H, W) float32 RGB in 0..1 and
`orig_target_sizes` (B, 2) int64, (width, height) of the original images. Out, best first:
`labels` (B, R) int64, `boxes` (B, R, 4) xyxy in pixels of the originals, `scores` (B, R).
GraphOptions (graph.py) has the variants.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

from torch import Tensor

from rtdetr_cli.backends.contract import Value, read_names, recognise
from rtdetr_cli.backends.graph_detector import Feed, OutputFilter, detect_in_parts, too_slow
from rtdetr_cli.backends.notes import check_size, checked_notes
from rtdetr_cli.backends.onnx.external_data import check_file
from rtdetr_cli.backends.onnx.graph import (
    TOP_PAIRS,
)
from rtdetr_cli.backends.onnx.session import open_session, runtime_errors
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.bounded_text import parse_json
from rtdetr_cli.core.errors import BackendError, WeightsError
from rtdetr_cli.core.structures import Detections

FORMAT_VERSION = 1
_INPUTS = {"float32": "RGB / 255", "uint8": "RGB"}


class OnnxDetector:
    """A detector in a file, run by ONNX Runtime; files by others open too (contract.py).

    Attributes:
        names: class index to name.
        preprocessing: how images become its input.
        size_is_free: whether the graph takes images of other sizes as well.
        takes_bytes: whether the graph takes uint8; `detect` rounds for it.
        description: for people: file, runtime, device; of a file by others the contract and whose
            class names are used.
        metadata: what `rtdetr export` noted in the file; empty in files by others.
    """

    def __init__(self, path: Path, device: str | None = None, timeout: float | None = None) -> None:
        """Open a file.

        Args:
            path: the file.
            device: `cpu`, `cuda`, `0`...; None takes CUDA where ONNX Runtime has it.
            timeout: seconds that an image may take; the runtime stops between two operators, in
                loops too.

        Raises:
            WeightsError: no ONNX file, or its inputs and outputs are others.
            BackendError: ONNX Runtime or the device is missing.
        """
        check_file(path)
        self._path, self._timeout = path, timeout
        self._session, runtime = self._open(path, device)
        with runtime_errors(WeightsError, f"{path} cannot be opened as ONNX"):  # texts are decoded
            notes = self._session.get_modelmeta().custom_metadata_map
            inputs, outputs = map(
                _values, (self._session.get_inputs(), self._session.get_outputs())
            )
        self._contract = recognise(inputs, outputs, notes, path.name)
        self.metadata = _read_metadata(notes, path)
        self.names, whose = read_names(self._contract, notes, self.metadata)
        self._filter = OutputFilter(path.name, self.names, whose)
        own = self.metadata.get("preprocessing", {})
        antialias = own.get("antialias", self._contract.antialias)
        self.size_is_free = self._contract.size_is_free
        self.takes_bytes = self._contract.takes_bytes
        height, width = self._contract.size_hw
        if self.size_is_free and "size_hw" in own:
            height, width = own["size_hw"]
            check_size((height, width), self._contract.batch, path.name)
        self.preprocessing = Preprocessing((height, width), antialias)
        self.description = f"{path.name}, {runtime}"
        if not self.metadata:
            self.description += f"; {self._contract.family}, class names: {whose}"

    def _open(self, path: Path, device: str | None) -> tuple[Any, str]:
        """A session on the file, and for people what runs it."""
        return open_session(path, device)

    def detect(
        self, images: Tensor, sizes_hw: list[tuple[int, int]], max_det: int = TOP_PAIRS
    ) -> list[Detections]:
        """Find objects.

        Args:
            images: (B, 3, H, W) float RGB in 0..1, H and W as in `preprocessing`. A graph with a
                fixed batch gets them in parts, the last one filled up.
            sizes_hw: (height, width) in pixels of each original image.
            max_det: most detections per image; the graph itself ends at 300.

        Returns:
            One Detections per image, on the CPU.

        Raises:
            BackendError: the runtime failed, for lack of memory perhaps, or took too long.
            WeightsError: the outputs are not those of a detector.
        """
        return detect_in_parts(self._contract, images, sizes_hw, max_det, self._run, self._filter)

    def _run(self, feed: Feed) -> list[Any]:
        """One call of the runtime, ended by a timer where there is a limit."""
        from onnxruntime import RunOptions

        names, options = list(self._contract.outputs), RunOptions()
        count = len(feed[self._contract.image])
        try:
            with (
                runtime_errors(BackendError, f"{self._path.name} failed on {count} images"),
                _timer(self._timeout, count, options),
            ):
                answers: list[Any] = self._session.run(names, feed, options)
        except BackendError as error:
            if self._timeout is not None and options.terminate:
                raise too_slow(self._path.name, count, self._timeout) from error
            raise
        return answers


def _values(side: Sequence[Any]) -> list[Value]:
    return [Value(value.name, value.type, list(value.shape or ())) for value in side]


@contextmanager
def _timer(timeout: float | None, count: int, options: Any) -> Iterator[None]:  # noqa: ANN401
    """Set the flag at which ONNX Runtime ends a run, once `count` images took too long."""
    if timeout is None:
        yield
        return
    timer = Timer(timeout * count, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class UnchangedDetector(OnnxDetector):
    """Runs a file of int8 as it is, slowly, where OnnxDetector restates it for the CPU."""

    def _open(self, path: Path, device: str | None) -> tuple[Any, str]:
        return open_session(path, device, path.read_bytes())


def _read_metadata(stored: Mapping[str, str], path: Path) -> dict[str, Any]:
    """What `write_onnx` noted; empty in a file by others, whatever it notes."""
    version = stored.get("rtdetr_format")
    if version is None:
        return {}
    if version != str(FORMAT_VERSION):
        raise WeightsError(
            f"{path.name} has format version {version}; this rtdetr reads {FORMAT_VERSION}"
        )
    try:
        notes = {key: parse_json(value) for key, value in stored.items()}
    except json.JSONDecodeError as error:
        raise WeightsError(f"{path.name} has damaged metadata: {error}") from error
    return checked_notes(notes, path.name)
