"""Build the graph of an ONNX file: tracing, clean-up after PyTorch's exporter, checks.

writer.py writes it with its metadata. Legend: B batch, Q queries, K classes, R rows.
"""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rtdetr_cli.backends.contract import INPUTS, OUTPUTS, RAW_OUTPUTS, TOP_PAIRS
from rtdetr_cli.backends.onnx.decoder import FEWEST_CELLS
from rtdetr_cli.backends.onnx.network import DeployedNetwork
from rtdetr_cli.backends.onnx.sampling import take_rows
from rtdetr_cli.backends.onnx.session import needs_onnx_extra
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.core.structures import ModelOutput
from rtdetr_cli.core.version import VERSION
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

_EXPORTER_OPSET = 18
_SINCE_18 = {"num_outputs", "noop_with_empty_axes", "keep_aspect_ratio_policy", "antialias"}
"""Attributes that opset 17 lacks; the exporter writes them with their default values."""
_REDUCTIONS = {"ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"}
_IR_VERSION = {17: 8, 18: 8, 19: 9}
"""Oldest IR version for each opset, for old runtimes."""


@dataclass(frozen=True)
class GraphOptions:
    """Variants of the graph.

    Attributes:
        opset: 17 to 19. From 20 on TensorRT reads GridSample's mode as nearest.
        sampler: `grid_sample` or `gather`.
        dynamic: whether height and width are free; they are multiples of 32.
        postprocess: whether the outputs are the best 300 detections in pixels, or the logits and
            boxes of the decoder.
        input: `float32` (B, 3, H, W) in 0..1, or `uint8` (B, H, W, 3) in 0..255.
        batch: fixed batch size, None if free.
    """

    opset: int = 17
    sampler: str = "grid_sample"
    dynamic: bool = False
    postprocess: bool = True
    input: str = "float32"
    batch: int | None = None


class DetectionGraph(nn.Module):
    """The deployed network with its pre- and post-processing, as written into the file."""

    def __init__(
        self, network: RTDETRNetwork, size_hw: tuple[int, int], options: GraphOptions
    ) -> None:
        super().__init__()
        fixed_hw = None if options.dynamic else size_hw
        self.network = DeployedNetwork(network, fixed_hw, options.sampler).cpu().float()
        self.takes_bytes = options.input == "uint8"

    def forward(self, images: Tensor, orig_target_sizes: Tensor | None = None) -> list[Tensor]:
        """Detect objects.

        Args:
            images: (B, 3, H, W) float32 in 0..1, or (B, H, W, 3) uint8.
            orig_target_sizes: (B, 2) width and height of the originals, for post-processing.

        Returns:
            labels (B, R), boxes (B, R, 4) xyxy and scores (B, R); without sizes logits (B, Q, K)
            and boxes (B, Q, 4) cxcywh.
        """
        if self.takes_bytes:  # TensorRT requires the cast first
            images = images.float().permute(0, 3, 1, 2) / 255
        output = self.network(images)
        if orig_target_sizes is None:
            return [output.pred_logits, output.pred_boxes]
        return best_pairs(output, orig_target_sizes)


def best_pairs(output: ModelOutput, sizes_wh: Tensor) -> list[Tensor]:
    """nn/postprocess.py with fewer nodes: labels (B, R), boxes (B, R, 4) in pixels, scores."""
    logits = output.pred_logits
    num_classes = logits.shape[2]
    best, pairs = logits.flatten(1).topk(_num_rows(logits.shape[1], num_classes), dim=1)
    queries = pairs // num_classes
    labels = pairs - queries * num_classes
    centre, size = take_rows(output.pred_boxes, queries).split(2, dim=-1)
    corners = torch.cat((centre - size / 2, centre + size / 2), dim=-1)
    sizes_wh = sizes_wh.to(corners.dtype)
    sizes_whwh = torch.cat((sizes_wh, sizes_wh), dim=1)[:, None]  # (B, 1, 4)
    return [labels, corners * sizes_whwh, best.sigmoid()]


def _num_rows(num_queries: int | torch.SymInt, num_classes: int) -> int | torch.SymInt:
    """Detections per image: TOP_PAIRS, or all pairs of query and class if there are fewer."""
    if isinstance(num_queries, torch.SymInt) and num_classes * FEWEST_CELLS >= TOP_PAIRS:
        return TOP_PAIRS
    return torch.sym_min(TOP_PAIRS, num_queries * num_classes)


def trace(graph: DetectionGraph, size_hw: tuple[int, int], options: GraphOptions) -> ModelProto:
    """Export a graph with torch.export and fold all constants.

    The deprecated TorchScript exporter needs twice the nodes, at the same latency (docs/export.md).
    With Dim, torch rejects code that would specialise a free side.
    """
    with needs_onnx_extra():
        import onnx  # noqa: F401  (the exporter needs it too and would fail half-way)
        from onnxscript import optimizer

    example, shapes = _example(graph, size_hw, options)
    traced = torch.export.export(graph, example, dynamic_shapes=shapes, strict=False)
    program: Any = torch.onnx.export(
        traced,
        dynamo=True,
        opset_version=_EXPORTER_OPSET,
        input_names=list(INPUTS)[: len(example)],
        output_names=list(OUTPUTS if options.postprocess else RAW_OUTPUTS),
        optimize=False,
        custom_translation_table=_translations(),
        verbose=False,
    )
    # By default tensors above 8192 elements are not folded, such as the anchors.
    limit = 1 << 24
    optimizer.optimize_ir(program.model, input_size_limit=limit, output_size_limit=limit)
    model: ModelProto = program.model_proto
    drop_pads(model)
    return model


def _example(
    graph: DetectionGraph, size_hw: tuple[int, int], options: GraphOptions
) -> tuple[tuple[Tensor, ...], tuple[dict[int, Any], ...]]:
    """Example inputs for tracing, and which of their sides are free."""
    count = options.batch or 2
    shape = (count, *size_hw, 3) if graph.takes_bytes else (count, 3, *size_hw)
    images = torch.zeros(shape, dtype=torch.uint8 if graph.takes_bytes else torch.float32)
    batch = {} if options.batch else {0: torch.export.Dim("batch")}
    sides: dict[int, Any] = {}
    if options.dynamic:
        first = 1 if graph.takes_bytes else 2
        sides = {
            first + axis: 32 * torch.export.Dim(name)
            for axis, name in enumerate(("rows", "columns"))
        }
    if not options.postprocess:
        return (images,), ({**batch, **sides},)
    sizes_wh = torch.tensor([size_hw[::-1]] * count)
    return (images, sizes_wh), ({**batch, **sides}, batch)


def _translations() -> dict[Any, Any]:
    """PyTorch operators that map to a single ONNX operator here.

    Indices of pairs are never negative, so floor division needs no correction (eight nodes).
    """
    from onnxscript import opset18

    ops: Any = opset18
    return {
        torch.ops.aten.floor_divide.default: lambda a, b: ops.Div(a, b),
        torch.ops.rtdetr.take_rows.default: lambda table, index: ops.GatherND(
            table, ops.Unsqueeze(index, [2]), batch_dims=1
        ),
    }


def drop_pads(model: ModelProto) -> None:
    """Fuse a Pad between ReLU and MaxPool into the MaxPool, which pads with -inf instead of 0.

    The result is the same: every window holds at least one non-negative number.
    """
    from onnx import numpy_helper

    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    values = {tensor.name: tensor for tensor in graph.initializer}
    for pool in [node for node in graph.node if node.op_type == "MaxPool"]:
        pad = makers[pool.input[0]]
        if pad.op_type != "Pad" or makers[pad.input[0]].op_type != "Relu":
            continue
        ends = numpy_helper.to_array(values[pad.input[1]]).reshape(2, 4)[:, 2:]
        pads = next(attribute for attribute in pool.attribute if attribute.name == "pads")
        pads.ints[:] = ends.flatten().tolist()
        pool.input[0] = pad.input[0]
        graph.node.remove(pad)


def restate_opset(model: ModelProto, opset: int) -> None:
    """Convert the exporter's opset 18 to 17 or 19.

    Opset 19 changes no operator used here. Opset 17 has the axes of reductions in an attribute;
    `check_graph` finds other differences.
    """
    from onnx import helper, numpy_helper

    entry = model.opset_import[0]
    if opset < entry.version:
        values = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type in _REDUCTIONS and len(node.input) == 2:
                axes = numpy_helper.to_array(values[node.input.pop()]).tolist()
                node.attribute.append(helper.make_attribute("axes", axes))
            for attribute in list(node.attribute):
                if attribute.name in _SINCE_18:
                    node.attribute.remove(attribute)
    entry.version = opset
    model.ir_version = _IR_VERSION[opset]


def strip(model: ModelProto, options: GraphOptions) -> None:
    """Name nodes and free sides; remove unused constants, and debug data with local paths."""
    graph = model.graph
    name_nodes(graph)
    used = {name for node in graph.node for name in node.input}
    for constant in [one for one in graph.initializer if one.name not in used]:
        graph.initializer.remove(constant)
    graph.ClearField("value_info")
    for item in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    for value in (*graph.input, *graph.output) if options.batch is None else ():
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    if options.dynamic:
        first = 1 if options.input == "uint8" else 2
        for axis, name in enumerate(("height", "width")):
            graph.input[0].type.tensor_type.shape.dim[first + axis].dim_param = name
        for value in graph.output:
            rows = value.type.tensor_type.shape.dim[1]
            if rows.dim_param:  # a formula of the sides
                rows.dim_param = "rows"
    graph.name = model.producer_name = "rtdetr"
    model.producer_version = VERSION


def check_graph(model: ModelProto, opset: int) -> None:
    """Reject a graph that runtimes would misread or cannot read.

    Raises:
        BackendError: lists the faults.
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
    except (
        checker.ValidationError,
        RuntimeError,
    ) as error:  # shape inference raises no specific class
        found.append(str(error).splitlines()[0])
    if found:
        raise BackendError(
            f"the exporter of PyTorch {torch.__version__} wrote a graph with {'; '.join(found)}"
        )


_SCOPES = "pkg.torch.onnx.name_scopes"
"""Metadata key under which the exporter stores the module path of a node."""
_ROOT = "network"
"""The attribute of DetectionGraph that holds the network."""
_REST = "post"
"""Prefix of nodes outside of the network."""


def name_nodes(graph: GraphProto) -> None:
    """Name nodes after their module and operator: `encoder/input_proj/0/0/Conv`.

    Nodes outside of the network start with `post/`; duplicates end in `_1`, `_2`...
    """
    scopes: dict[str, str] = {}  # of each tensor's producer
    taken: Counter[str] = Counter()
    for node in graph.node:
        inherited = next((scopes[name] for name in node.input if name in scopes), _REST)
        scope = _noted_scope(node) or inherited
        scopes |= dict.fromkeys(node.output, scope)
        name = f"{scope}/{node.op_type}"
        node.name = f"{name}_{taken[name]}" if taken[name] else name
        taken[name] += 1


def _noted_scope(node: NodeProto) -> str | None:
    """Module path that the exporter recorded; None for nodes that an optimizer created."""
    notes = {entry.key: entry.value for entry in node.metadata_props}
    if _SCOPES not in notes:
        return None
    *modules, _ = ast.literal_eval(notes[_SCOPES])  # the last entry is the call itself
    parts = modules[-1].split(".") if modules else []
    inside = parts[1:] if parts[:1] == [_ROOT] else []
    return "/".join(inside) or _REST
