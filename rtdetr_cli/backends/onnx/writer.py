"""Write a network as an ONNX file; detector.py runs it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from rtdetr_cli.backends.notes import ExportNotes, PreprocessingNotes
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
from rtdetr_cli.weights.calibration import Calibration

_INPUTS = {"float32": "RGB / 255", "uint8": "RGB"}


def write_onnx(
    path: Path,
    network: RTDETRNetwork,
    names: dict[int, str],
    preprocessing: Preprocessing,
    options: GraphOptions = GraphOptions(),  # noqa: B008  it is frozen
    licence: str = "",
    calibration: Calibration | None = None,
) -> int:
    """Write a network with its current decoder layers and queries.

    Args:
        path: the file; an existing one is overwritten.
        network: in eval mode; it is not changed.
        names: class index to name.
        preprocessing: fixes height and width of the graph; with `dynamic` they are the default.
        options: of the graph.
        licence: of the weights, for the metadata; empty if it is not known.
        calibration: of the weights, likewise; None if there is none.

    Returns:
        The number of nodes.

    Raises:
        BackendError: a package of the extra `onnx` is missing, or runtimes would misread the
            exported graph.
    """
    size_hw, opset = preprocessing.size_hw, options.opset
    model = trace(DetectionGraph(network, size_hw, options).eval(), size_hw, options)
    restate_opset(model, opset)
    strip(model, options)
    notes = _notes(network, names, preprocessing, options)
    notes = replace(notes, licence=licence or None, calibration=calibration)
    for key, value in notes.to_dict().items():
        model.metadata_props.add(key=key, value=json.dumps(value, ensure_ascii=False))
    check_graph(model, opset)
    path.write_bytes(model.SerializeToString())
    return len(model.graph.node)


def _notes(
    network: RTDETRNetwork,
    names: dict[int, str],
    preprocessing: Preprocessing,
    options: GraphOptions,
) -> ExportNotes:
    """The metadata of the file."""
    return ExportNotes(
        names=names,
        preprocessing=PreprocessingNotes(
            preprocessing.size_hw, preprocessing.antialias, "stretch", _INPUTS[options.input]
        ),
        architecture=model_config_to_dict(network.config),
        decoder_layers=network.decoder.eval_layers,
        num_queries=network.decoder.num_queries,
        precision="fp32",
        sampler=used_sampler(network, options.sampler),
        dynamic=options.dynamic,
        postprocess=options.postprocess,
        batch=options.batch,
    )


def note_verdict(path: Path, verdict: str) -> None:
    """Append the verdict to the metadata of a file.

    A protobuf message that follows another one is merged into it, so the file need not be parsed.
    """
    from onnx import ModelProto, StringStringEntryProto

    entry = StringStringEntryProto(key="verdict", value=json.dumps(verdict))
    with path.open("ab") as file:
        file.write(ModelProto(metadata_props=[entry]).SerializeToString())
