"""ONNX: writes a network with its post-processing as one graph, and runs such graphs.

The contract is that of the official export. In: `images` (B, 3, H, W) float32 RGB in 0..1 and
`orig_target_sizes` (B, 2) int64, (width, height) of the original pictures. Out, best first:
`labels` (B, R) int64, `boxes` (B, R, 4) xyxy in pixels of the originals, `scores` (B, R).
H and W are fixed in the graph, the batch is free.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rtdetr_cli import __version__
from rtdetr_cli.backends.contract import (
    INPUTS,
    OUTPUTS,
    Feed,
    check_labels,
    detect_in_parts,
    read_names,
    recognise,
)
from rtdetr_cli.backends.deployed import DeployedNetwork
from rtdetr_cli.backends.node_names import name_nodes
from rtdetr_cli.backends.onnx_session import needs_onnx_extra, open_session, runtime_errors
from rtdetr_cli.backends.sampling import take_rows
from rtdetr_cli.config.load import model_config_to_dict
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.errors import BackendError, WeightsError
from rtdetr_cli.core.structures import Detections
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

if TYPE_CHECKING:
    from onnx import ModelProto

TOP_PAIRS = 300
FORMAT_VERSION = 1
_EXPORTER_OPSET = 18
_SINCE_18 = {"num_outputs", "noop_with_empty_axes", "keep_aspect_ratio_policy", "antialias"}
"""Attributes that opset 17 does not know; the exporter writes them with their defaults."""
_IR_VERSION = {17: 8, 18: 8, 19: 9}
"""The oldest file format that has each operator set, for old runtimes."""


class DetectionGraph(nn.Module):
    """A network as it is deployed and its post-processing: what is written into the file."""

    def __init__(self, network: RTDETRNetwork, size_hw: tuple[int, int] | None) -> None:
        super().__init__()
        self.network = DeployedNetwork(network, size_hw).cpu().float()

    def forward(self, images: Tensor, orig_target_sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) and (B, 2) to labels (B, R), boxes (B, R, 4) and scores (B, R)."""
        output = self.network(images)
        logits = output.pred_logits
        count = min(TOP_PAIRS, logits.shape[1] * logits.shape[2])
        best, pairs = logits.flatten(1).topk(count, dim=1)
        queries = pairs // logits.shape[2]
        labels = pairs - queries * logits.shape[2]
        boxes = take_rows(output.pred_boxes, queries)  # (B, R, 4)
        centre, size = boxes.split(2, dim=-1)
        corners = torch.cat((centre - size / 2, centre + size / 2), dim=-1)
        sizes_wh = orig_target_sizes.to(boxes.dtype)
        sizes_whwh = torch.cat((sizes_wh, sizes_wh), dim=1)[:, None]  # (B, 1, 4)
        return labels, corners * sizes_whwh, best.sigmoid()


def write_onnx(
    path: Path,
    network: RTDETRNetwork,
    names: dict[int, str],
    preprocessing: Preprocessing,
    opset: int = 17,
) -> int:
    """Write a network at its present speed settings.

    Args:
        path: the file; an older one is overwritten.
        network: in eval mode; it is left as it is.
        names: class index to name.
        preprocessing: fixes height and width of the graph.
        opset: 17 to 19. From 20 on TensorRT reads GridSample's mode as nearest.

    Returns:
        The number of nodes.

    Raises:
        BackendError: the packages of the extra are missing, or the exporter wrote a graph that
            runtimes would misread.
    """
    model = _trace(DetectionGraph(network, preprocessing.size_hw).eval(), preprocessing.size_hw)
    restate_opset(model, opset)
    _strip(model)
    for key, value in _metadata(network, names, preprocessing).items():
        model.metadata_props.add(key=key, value=json.dumps(value, ensure_ascii=False))
    check_graph(model, opset)
    path.write_bytes(model.SerializeToString())
    return len(model.graph.node)


def _trace(graph: DetectionGraph, size_hw: tuple[int, int]) -> ModelProto:
    """The graph as torch's exporter sees it, every constant folded.

    PyTorch's older exporter (TorchScript, deprecated) needs 996 nodes for rtdetr-n instead of 569,
    at the same latency (docs/export.md). Dim makes torch refuse code that fixes the batch.
    """
    with needs_onnx_extra():
        import onnx  # noqa: F401  (the exporter needs it too and would fail half-way)
        from onnxscript import optimizer

    example = (torch.zeros(2, 3, *size_hw), torch.tensor([size_hw[::-1]] * 2))
    batch = {0: torch.export.Dim("batch")}
    traced = torch.export.export(graph, example, dynamic_shapes=(batch, batch), strict=False)

    program: Any = torch.onnx.export(
        traced,
        dynamo=True,
        opset_version=_EXPORTER_OPSET,
        input_names=list(INPUTS),
        output_names=list(OUTPUTS),
        optimize=False,
        custom_translation_table=_translations(),
        verbose=False,
    )
    # By default tensors above 8192 elements are not folded: the anchors would be made at run time.
    limit = 1 << 24
    optimizer.optimize_ir(program.model, input_size_limit=limit, output_size_limit=limit)
    model: ModelProto = program.model_proto
    return model


def _translations() -> dict[Any, Any]:
    """Operators of PyTorch that are one of ONNX here.

    A pair's index is never negative, so that division needs no correction (eight nodes).
    """
    from onnxscript import opset18

    ops: Any = opset18
    return {
        torch.ops.aten.floor_divide.default: lambda a, b: ops.Div(a, b),
        torch.ops.rtdetr.take_rows.default: lambda table, index: ops.GatherND(
            table, ops.Unsqueeze(index, [2]), batch_dims=1
        ),
    }


def restate_opset(model: ModelProto, opset: int) -> None:
    """Restate the exporter's opset 18 as 17 or 19.

    19 changed no operator's meaning. 17 has the axes of reductions in an attribute; what else it
    lacks, `check_graph` finds.
    """
    from onnx import helper, numpy_helper

    entry = model.opset_import[0]
    if opset < entry.version:
        values = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type in {"ReduceMax", "ReduceMin"} and len(node.input) == 2:
                axes = numpy_helper.to_array(values[node.input.pop()]).tolist()
                node.attribute.append(helper.make_attribute("axes", axes))
            for attribute in list(node.attribute):
                if attribute.name in _SINCE_18:
                    node.attribute.remove(attribute)
    entry.version = opset
    model.ir_version = _IR_VERSION[opset]


def _strip(model: ModelProto) -> None:
    """Name nodes and batch; remove what the exporter noted of this machine (paths at each node)."""
    graph = model.graph
    name_nodes(graph)
    graph.ClearField("value_info")
    for item in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    graph.name = model.producer_name = "rtdetr"
    model.producer_version = __version__


def _metadata(
    network: RTDETRNetwork, names: dict[int, str], preprocessing: Preprocessing
) -> dict[str, object]:
    """What a reader needs beside the graph; it is stored as JSON texts."""
    return {
        "rtdetr_format": FORMAT_VERSION,
        "names": names,
        "preprocessing": {**asdict(preprocessing), "resize": "stretch", "input": "RGB / 255"},
        "architecture": model_config_to_dict(network.config),
        "decoder_layers": network.decoder.eval_layers,
        "num_queries": network.decoder.num_queries,
        "precision": "fp32",
    }


def note_verdict(path: Path, verdict: str) -> None:
    """Add the verdict to the metadata of a written file; the graph is left as it is.

    In protobuf a message that follows another one adds to its lists, so nothing is read.
    """
    from onnx import ModelProto, StringStringEntryProto

    entry = StringStringEntryProto(key="verdict", value=json.dumps(verdict))
    with path.open("ab") as file:
        file.write(ModelProto(metadata_props=[entry]).SerializeToString())


def check_graph(model: ModelProto, opset: int) -> None:
    """Refuse a graph that runtimes would misread or cannot read.

    Raises:
        BackendError: what is wrong with it.
    """
    from onnx import checker, numpy_helper

    opsets = {entry.domain: entry.version for entry in model.opset_import}
    modes = {
        attribute.s.decode()
        for node in model.graph.node
        if node.op_type == "GridSample"
        for attribute in node.attribute
        if attribute.name == "mode"
    }
    constants = map(numpy_helper.to_array, model.graph.initializer)
    floats = (constant for constant in constants if constant.dtype.kind == "f")
    faults = {
        f"operator sets {opsets} instead of {opset}": opsets != {"": opset},
        f"GridSample modes {modes} instead of bilinear": not modes <= {"bilinear"},
        "a constant that is not finite": not all(np.isfinite(array).all() for array in floats),
    }
    found = [fault for fault, is_there in faults.items() if is_there]
    try:
        checker.check_model(model, full_check=True)
    except (checker.ValidationError, RuntimeError) as error:  # inference errors have no own class
        found.append(str(error).splitlines()[0])
    if found:
        raise BackendError(
            f"the exporter of PyTorch {torch.__version__} wrote a graph with {'; '.join(found)}"
        )


class OnnxDetector:
    """A detector in a file, run by ONNX Runtime; files by others open too (contract.py).

    Attributes:
        names: class index to name.
        preprocessing: how pictures become its input.
        size_is_free: whether the graph takes pictures of other sizes as well.
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
        self._session, runtime = self._open(path, device)
        notes = self._session.get_modelmeta().custom_metadata_map
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self._contract = recognise(inputs, outputs, notes, path.name)
        self.metadata = _read_metadata(notes, path)
        self.names, self._names_from = read_names(self._contract, notes, self.metadata)
        own = self.metadata.get("preprocessing", {})
        antialias = own.get("antialias", self._contract.antialias)
        self.preprocessing = Preprocessing(self._contract.size_hw, antialias)
        self.size_is_free = self._contract.size_is_free
        self.description = f"{path.name}, {runtime}"
        if not self.metadata:
            self.description += f"; {self._contract.family}, class names: {self._names_from}"

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
            sizes_hw: (height, width) in pixels of each original picture.
            max_det: most detections per picture; the graph itself ends at 300.

        Returns:
            One Detections per picture, on the CPU.

        Raises:
            BackendError: the runtime failed, for lack of memory perhaps.
            WeightsError: an answer is of a class that has no name.
        """
        found = detect_in_parts(self._contract, images, sizes_hw, max_det, self._run)
        check_labels(found, self.names, self._path, self._names_from)
        return found

    def _run(self, feed: Feed) -> list[Tensor]:
        """One call of the runtime."""
        count = len(feed[self._contract.image])
        with runtime_errors(BackendError, f"{self._path.name} failed on {count} pictures"):
            answers = self._session.run(list(self._contract.outputs), feed)
        return [torch.from_numpy(answer) for answer in answers]


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
