"""Run ONNX files with ONNX Runtime; writer.py writes them.

Inputs and outputs are those of the official export. In: `images` (B, 3, H, W) float32 RGB in 0..1
and `orig_target_sizes` (B, 2) int64, (width, height) of the original images. Out, best first:
`labels` (B, R) int64, `boxes` (B, R, 4) xyxy in pixels of the originals, `scores` (B, R).
GraphOptions (graph.py) has the variants, contract.py the third-party contracts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

from rtdetr_cli.backends.contract import Value
from rtdetr_cli.backends.graph_detector import Feed, GraphDetector, OpenGraph, too_slow
from rtdetr_cli.backends.notes import ExportNotes, check_format, parse_notes
from rtdetr_cli.backends.onnx.external_data import check_file
from rtdetr_cli.backends.onnx.session import open_session, runtime_errors
from rtdetr_cli.core.bounded_text import parse_json
from rtdetr_cli.core.errors import BackendError, WeightsError
from rtdetr_cli.core.status import counted


class OnnxDetector(GraphDetector):
    """A detector in an ONNX file, third-party files included."""

    def __init__(self, path: Path, device: str | None = None, timeout: float | None = None) -> None:
        """Open a file.

        Args:
            path: the file.
            device: `cpu`, `cuda`, `0`...; None prefers CUDA if ONNX Runtime has it.
            timeout: seconds per image; the runtime stops between two operators, in loops too.

        Raises:
            WeightsError: not an ONNX file, or its inputs and outputs are unknown.
            BackendError: ONNX Runtime or the device is missing.
        """
        check_file(path)
        self._path, self._timeout = path, timeout
        self._opened_with = (path.absolute(), device, timeout)
        self._session, runtime = self._open(path, device)
        with runtime_errors(WeightsError, f"{path} cannot be opened as ONNX"):  # texts are decoded
            texts = self._session.get_modelmeta().custom_metadata_map
            inputs = _values(self._session.get_inputs())
            outputs = _values(self._session.get_outputs())
        notes = parse_texts(texts, path.name)
        super().__init__(OpenGraph(path.name, runtime, inputs, outputs, texts, notes))

    def _open(self, path: Path, device: str | None) -> tuple[Any, str]:
        """Open a session; return it and a description of the runtime."""
        return open_session(path, device)

    def _run(self, feed: Feed) -> list[Any]:
        """Run the session once; with a timeout, a timer terminates it."""
        from onnxruntime import RunOptions

        names, options = list(self._contract.outputs), RunOptions()
        count = len(feed[self._contract.image])
        try:
            with (
                runtime_errors(
                    BackendError, f"{self._path.name} failed on {counted(count, 'image')}"
                ),
                _timer(self._timeout, count, options),
            ):
                outputs: list[Any] = self._session.run(names, feed, options)
        except BackendError as error:
            if self._timeout is not None and options.terminate:
                raise too_slow(self._path.name, count, self._timeout) from error
            raise
        return outputs


def _values(side: Sequence[Any]) -> list[Value]:
    return [Value(value.name, value.type, list(value.shape or ())) for value in side]


@contextmanager
def _timer(timeout: float | None, count: int, options: Any) -> Iterator[None]:  # noqa: ANN401
    """Tell ONNX Runtime to terminate a run after `timeout` seconds per image."""
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
    """Runs an INT8 file unchanged, which is slow; OnnxDetector rewrites it for the CPU."""

    def _open(self, path: Path, device: str | None) -> tuple[Any, str]:
        return open_session(path, device, path.read_bytes())


def parse_texts(texts: Mapping[str, str], name: str) -> ExportNotes | None:
    """Parse `metadata_props`, whose values are JSON texts; None in third-party files.

    Raises:
        WeightsError: the metadata is damaged, or of another format version.
    """
    if "rtdetr_format" not in texts:
        return None
    check_format(texts["rtdetr_format"], name)
    try:
        values = {key: parse_json(text) for key, text in texts.items()}
    except json.JSONDecodeError as error:
        raise WeightsError(f"{name} has damaged metadata: {error}") from error
    return parse_notes(values, name)
