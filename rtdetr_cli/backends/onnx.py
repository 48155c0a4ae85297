"""ONNX: writes a network with its post-processing as one graph, and runs such graphs.

The contract is that of the official export. In: `images` (B, 3, H, W) float32 RGB in 0..1 and
`orig_target_sizes` (B, 2) int64, (width, height) of the original pictures. Out, best first:
`labels` (B, R) int64, `boxes` (B, R, 4) xyxy in pixels of the originals, `scores` (B, R).
GraphOptions (onnx_graph.py) has the variants.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rtdetr_cli.backends.contract import read_names, recognise
from rtdetr_cli.backends.onnx_graph import (
    TOP_PAIRS,
    DetectionGraph,
    GraphOptions,
    check_graph,
    restate_opset,
    strip,
    trace,
)
from rtdetr_cli.backends.onnx_session import open_session, runtime_errors
from rtdetr_cli.backends.sampling import used_sampler
from rtdetr_cli.config.load import model_config_to_dict
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.errors import BackendError, WeightsError
from rtdetr_cli.core.structures import Detections
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

FORMAT_VERSION = 1
_INPUTS = {"float32": "RGB / 255", "uint8": "RGB"}


def write_onnx(
    path: Path,
    network: RTDETRNetwork,
    names: dict[int, str],
    preprocessing: Preprocessing,
    options: GraphOptions = GraphOptions(),  # noqa: B008  it is frozen
) -> int:
    """Write a network at its present speed settings.

    Args:
        path: the file; an older one is overwritten.
        network: in eval mode; it is left as it is.
        names: class index to name.
        preprocessing: fixes height and width of the graph; with `dynamic` they are a default.
        options: of the graph.

    Returns:
        The number of nodes.

    Raises:
        BackendError: the packages of the extra are missing, or the exporter wrote a graph that
            runtimes would misread.
    """
    size_hw, opset = preprocessing.size_hw, options.opset
    model = trace(DetectionGraph(network, size_hw, options).eval(), size_hw, options)
    restate_opset(model, opset)
    strip(model, options)
    for key, value in _metadata(network, names, preprocessing, options).items():
        model.metadata_props.add(key=key, value=json.dumps(value, ensure_ascii=False))
    check_graph(model, opset)
    path.write_bytes(model.SerializeToString())
    return len(model.graph.node)


def _metadata(
    network: RTDETRNetwork,
    names: dict[int, str],
    preprocessing: Preprocessing,
    options: GraphOptions,
) -> dict[str, object]:
    """What a reader needs beside the graph; it is stored as JSON texts."""
    return {
        "rtdetr_format": FORMAT_VERSION,
        "names": names,
        "preprocessing": {
            **asdict(preprocessing),
            "resize": "stretch",
            "input": _INPUTS[options.input],
        },
        "architecture": model_config_to_dict(network.config),
        "decoder_layers": network.decoder.eval_layers,
        "num_queries": network.decoder.num_queries,
        "sampler": used_sampler(network, options.sampler),
        "dynamic": options.dynamic,
        "postprocess": options.postprocess,
        "batch": options.batch,
    }


def note_verdict(path: Path, verdict: str) -> None:
    """Add the verdict to the metadata of a written file; the graph is left as it is.

    In protobuf a message that follows another one adds to its lists, so nothing is read.
    """
    from onnx import ModelProto, StringStringEntryProto

    entry = StringStringEntryProto(key="verdict", value=json.dumps(verdict))
    with path.open("ab") as file:
        file.write(ModelProto(metadata_props=[entry]).SerializeToString())


class OnnxDetector:
    """A detector in a file, run by ONNX Runtime; files by others open too (contract.py).

    Attributes:
        names: class index to name.
        preprocessing: how pictures become its input.
        size_is_free: whether the graph takes pictures of other sizes as well.
        takes_bytes: whether the graph takes uint8; `detect` rounds for it.
        description: for people: file, runtime, device; of a file by others the contract and whose
            class names are used.
        metadata: what `rtdetr export` noted in the file; empty in files by others.
    """

    def __init__(self, path: Path, device: str | None = None) -> None:
        """Open a file.

        Args:
            path: the file.
            device: `cpu`, `cuda`, `0`...; None takes CUDA where ONNX Runtime has it.

        Raises:
            WeightsError: no ONNX file, or its inputs and outputs are others.
            BackendError: ONNX Runtime or the device is missing.
        """
        self._path = path
        self._session, runtime = open_session(path, device)
        notes = self._session.get_modelmeta().custom_metadata_map
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self._contract = recognise(inputs, outputs, notes, path.name)
        self.metadata = _read_metadata(notes, path)
        self.names, self._names_from = read_names(self._contract, notes, self.metadata)
        own = self.metadata.get("preprocessing", {})
        antialias = own.get("antialias", self._contract.antialias)
        self.size_is_free = self._contract.size_is_free
        self.takes_bytes = self._contract.takes_bytes
        height, width = self._contract.size_hw
        if self.size_is_free and "size_hw" in own:
            height, width = own["size_hw"]
        self.preprocessing = Preprocessing((height, width), antialias)
        self.description = f"{path.name}, {runtime}"
        if not self.metadata:
            self.description += f"; {self._contract.family}, class names: {self._names_from}"

    def detect(
        self, images: Tensor, sizes_hw: list[tuple[int, int]], max_det: int = TOP_PAIRS
    ) -> list[Detections]:
        """Find objects.

        Args:
            images: (B, 3, H, W) float RGB in 0..1, H and W as in `preprocessing`. A graph with a
                fixed batch gets them in parts, the last one filled up.
            sizes_hw: (height, width) in pixels of each original picture.
            max_det: most detections per picture; the graph itself ends at 300.

        Returns:
            One Detections per picture, on the CPU.

        Raises:
            BackendError: the runtime failed, for lack of memory perhaps.
            WeightsError: an answer is of a class that has no name.
        """
        pixels = self._contract.to_input(images.detach().float().cpu()).numpy()
        step = self._contract.batch or max(len(pixels), 1)
        parts = [slice(start, start + step) for start in range(0, len(pixels), step)]
        found = [one for part in parts for one in self._run(pixels[part], sizes_hw[part], max_det)]
        self._check_labels(found)
        return found

    def _run(
        self, pixels: npt.NDArray[Any], sizes_hw: list[tuple[int, int]], max_det: int
    ) -> list[Detections]:
        """One call of the runtime; pictures are repeated up to the size of a fixed batch."""
        contract, count = self._contract, len(pixels)
        filled = np.minimum(np.arange(contract.batch or count), count - 1)
        feed: dict[str, npt.NDArray[Any]] = {contract.image: pixels}
        if contract.batch:
            feed = {contract.image: pixels[filled]}
        if contract.sizes:
            sizes_wh = [(width, height) for height, width in sizes_hw]
            feed[contract.sizes] = np.array(sizes_wh, np.int64)[filled]
        with runtime_errors(BackendError, f"{self._path.name} failed on {count} pictures"):
            answers = self._session.run(list(contract.outputs), feed)
        return contract.decode([torch.from_numpy(answer) for answer in answers], sizes_hw, max_det)

    def _check_labels(self, found: list[Detections]) -> None:
        largest = max((int(one.labels.max()) for one in found if len(one)), default=0)
        if largest > max(self.names):
            raise WeightsError(
                f"{self._path.name} answers with class {largest}, which has no name: "
                f"{self._names_from} end at {max(self.names)}"
            )


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
        return {key: json.loads(value) for key, value in stored.items()}
    except json.JSONDecodeError as error:
        raise WeightsError(f"{path.name} has damaged metadata: {error}") from error
