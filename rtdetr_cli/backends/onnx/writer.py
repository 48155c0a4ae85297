"""Write a network as an ONNX file; detector.py runs it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rtdetr_cli.backends.onnx.detector import _INPUTS, FORMAT_VERSION
from rtdetr_cli.backends.onnx.graph import (
    DetectionGraph,
    GraphOptions,
    check_graph,
    restate_opset,
    strip,
    trace,
)
from rtdetr_cli.backends.onnx.sampling import used_sampler
from rtdetr_cli.config.load import model_config_to_dict
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.nn.rtdetr import RTDETRNetwork


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
        "precision": "fp32",
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
