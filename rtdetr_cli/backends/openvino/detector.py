"""Write OpenVINO folders from our ONNX files, and run such folders on a CPU.

`best_openvino_model/` holds best.xml and best.bin, the graph as OpenVINO's tools read it, and
metadata.json, the ExportNotes. Inputs and outputs are those of our ONNX files. float32.py selects
the operators that stay float32 in bf16, int8.py those that stay float in INT8.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rtdetr_cli.backends.contract import Value
from rtdetr_cli.backends.graph_detector import Feed, GraphDetector, OpenGraph, too_slow
from rtdetr_cli.backends.notes import ExportNotes, check_format, parse_notes, required
from rtdetr_cli.backends.onnx.detector import parse_texts
from rtdetr_cli.backends.openvino.float32 import keep_float32, mark_float32
from rtdetr_cli.backends.openvino.int8 import blocks, quantize
from rtdetr_cli.backends.openvino.package import (
    openvino_package,
    runtime_errors,
    same_signal_stack,
    version,
)
from rtdetr_cli.core.bounded_text import parse_json, read_bounded
from rtdetr_cli.core.bounded_yaml import parse_yaml
from rtdetr_cli.core.console import warn
from rtdetr_cli.core.cpu import num_threads
from rtdetr_cli.core.devices import parse_device
from rtdetr_cli.core.errors import BackendError, WeightsError

FOLDER = "_openvino_model"
"""Suffix of the folder name, as Ultralytics writes it."""
NOTES = "metadata.json"
_THEIR_NOTES = "metadata.yaml"
_ONNX_TYPES = {"f32": "tensor(float)", "i64": "tensor(int64)"}


class OpenVINODetector(GraphDetector):
    """A detector in an OpenVINO folder, those of Ultralytics included."""

    def __init__(self, path: Path, device: str | None = None, timeout: float | None = None) -> None:
        """Open a folder.

        Args:
            path: the folder, or the .xml in it.
            device: `cpu` or None; other devices are not supported.
            timeout: seconds per image; the runtime stops between two operators.

        Raises:
            WeightsError: missing, damaged, or its inputs and outputs are unknown; with a timeout
                also a graph with loops, which OpenVINO does not interrupt.
            BackendError: OpenVINO is missing, or the device is not a CPU.
        """
        if device is not None and parse_device(device).type != "cpu":
            raise BackendError(f"device={device}: OpenVINO runs on the CPU here; give device=cpu")
        xml = graph_file(path)
        self._path = xml.parent if xml.parent.name.endswith(FOLDER) else xml
        self._timeout = timeout
        self._opened_with = (path.absolute(), device, timeout)
        notes, texts = read_notes_beside(xml)
        model, self._compiled, runtime = _compile(xml, (notes and notes.floats) or "f32")
        if timeout is not None:
            _refuse_loops(model, self._path.name)
        with runtime_errors(WeightsError, f"{xml} cannot be opened by OpenVINO"):
            inputs, outputs = _ports(model.inputs), _ports(model.outputs)
        super().__init__(OpenGraph(self._path.name, runtime, inputs, outputs, texts, notes))
        by_name = {port.name: index for index, port in enumerate(outputs)}
        self._outputs = [by_name[name] for name in self._contract.outputs]

    def _run(self, feed: Feed) -> list[Any]:
        """Run the compiled graph once."""
        with runtime_errors(BackendError, f"{self._path.name} failed"), same_signal_stack():
            if self._timeout is None:
                outputs = self._compiled(feed).to_tuple()
            else:
                outputs = self._run_within(self._timeout, feed)
        return [outputs[index] for index in self._outputs]

    def _run_within(self, timeout: float, feed: Feed) -> tuple[Any, ...]:
        count = len(feed[self._contract.image])
        request = self._compiled.create_infer_request()
        request.start_async(feed)
        if not request.wait_for(math.ceil(1000 * timeout * count)):
            request.cancel()
            with suppress(RuntimeError):  # raised because of the cancellation
                request.wait()
            raise too_slow(self._path.name, count, timeout)
        request.wait()
        outputs: tuple[Any, ...] = request.results.to_tuple()
        return outputs


def graph_file(path: Path) -> Path:
    """The .xml of a folder, or the file itself.

    Raises:
        WeightsError: there is not exactly one .xml, or no .bin beside it.
    """
    found = sorted(path.glob("*.xml")) if path.is_dir() else [path]
    if len(found) != 1 or not found[0].is_file():
        raise WeightsError(f"{path} must hold one .xml of OpenVINO, found {len(found)}")
    if not found[0].with_suffix(".bin").is_file():
        raise WeightsError(f"{found[0].with_suffix('.bin').name} is not beside {found[0]}")
    return found[0]


def write_openvino(
    folder: Path,
    onnx_path: Path,
    half: bool = False,
    calibration: Iterable[Feed] | None = None,
    kept_float: Collection[str] = (),
) -> ExportNotes:
    """Write a network from its float32 ONNX file.

    Args:
        folder: an empty folder; its name without `_openvino_model` names the files in it.
        onnx_path: written by `write_onnx`.
        half: run in bf16 where that is safe.
        calibration: inputs of real images; if given, convolutions become INT8.
        kept_float: blocks that stay float in INT8.

    Returns:
        The notes, as in metadata.json.

    Raises:
        BackendError: OpenVINO or NNCF is missing.
    """
    openvino = openvino_package()
    model = openvino.Core().read_model(onnx_path)
    if calibration is not None:
        model = quantize(model, calibration, kept_float)
    texts = model.get_rt_info("framework").value  # the metadata of the ONNX file
    notes = replace(
        required(parse_texts(texts, onnx_path.name), "rtdetr_format", onnx_path.name),
        precision="int8" if calibration is not None else "bf16" if half else "fp32",
        floats="bf16" if half else "f32",
        openvino=version(),
    )
    _describe_for_model_api(model, required(notes.names, "names", onnx_path.name))
    exact = keep_float32(model) if half else set()
    xml = folder / f"{folder.name.removesuffix(FOLDER)}.xml"
    openvino.save_model(model, xml, compress_to_fp16=False)
    mark_float32(xml, exact)
    write_notes(folder, notes)
    return notes


def int8_blocks(onnx_path: Path) -> list[str]:
    """The blocks of a network that can be INT8, front to back."""
    return blocks(openvino_package().Core().read_model(onnx_path))


def write_notes(folder: Path, notes: ExportNotes) -> None:
    """Write metadata.json."""
    text = json.dumps(notes.to_dict(), indent=2, ensure_ascii=False) + "\n"
    (folder / NOTES).write_text(text, encoding="utf-8")


def folder_files(folder: Path) -> list[str]:
    """Names of the files that `write_openvino` writes."""
    stem = folder.name.removesuffix(FOLDER)
    return [f"{stem}.xml", f"{stem}.bin", NOTES]


def _compile(xml: Path, floats: str) -> tuple[Any, Any, str]:
    """Read and compile a graph; return both forms and a description of the runtime.

    The precision is always set: by default, CPUs with bf16 use it for every graph.
    """
    openvino = openvino_package()
    core = openvino.Core()
    if floats == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        warn(f"this CPU has no instructions for bf16: {xml.name} runs in float32")
        floats = "f32"
    options = {
        "INFERENCE_PRECISION_HINT": floats,
        "INFERENCE_NUM_THREADS": num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    with runtime_errors(WeightsError, f"{xml} cannot be opened by OpenVINO"):
        # Not mapped: the file may be replaced while it runs.
        model = core.read_model(xml, config={"ENABLE_MMAP": False})
        with same_signal_stack():
            compiled = core.compile_model(model, "CPU", options)
    shown = {"bf16": "bf16", "f32": "float32"}[floats]
    return model, compiled, f"OpenVINO {version()}, CPU, {shown}"


def _refuse_loops(model: Any, name: str) -> None:  # noqa: ANN401
    """Reject control-flow operators, which may never end.

    Raises:
        WeightsError: the graph has one.
    """
    found = {"If", "Loop", "TensorIterator"} & {op.get_type_name() for op in model.get_ops()}
    if found:
        raise WeightsError(
            f"{name} has the operator {min(found)}, which OpenVINO does not interrupt: run it "
            "without timeout, or as ONNX"
        )


def _ports(side: list[Any]) -> list[Value]:
    """Describe inputs or outputs; graphs converted from PyTorch may have unnamed outputs."""
    ports: list[Value] = []
    for index, port in enumerate(side):
        kind = port.element_type.get_type_name()
        sizes = [size.get_length() if size.is_static else "?" for size in port.partial_shape]
        name = port.any_name if port.names else "Result_"
        name = f"output{index}" if name.startswith("Result_") else name
        ports.append(Value(name, _ONNX_TYPES.get(kind, f"tensor({kind})"), sizes))
    return ports


def read_notes_beside(file: Path) -> tuple[ExportNotes | None, dict[str, str]]:
    """Read our metadata.json, None if absent; else the texts of Ultralytics' metadata.yaml.

    Raises:
        WeightsError: the metadata is damaged, or of another format version.
    """
    folder = file.parent
    ours, theirs = folder / NOTES, folder / _THEIR_NOTES
    try:
        if theirs.is_file() and not ours.is_file():
            found = parse_yaml(read_bounded(theirs)) or {}
            return None, {str(key): str(value) for key, value in dict(found).items()}
        notes = parse_json(read_bounded(ours)) if ours.is_file() else {}
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{folder.name} has damaged metadata: {error}") from error
    if not notes:
        return None, {}
    check_format(notes.get("rtdetr_format") if isinstance(notes, dict) else None, str(ours))
    return parse_notes(notes, folder.name), {}


def _describe_for_model_api(model: Any, names: dict[int, str]) -> None:  # noqa: ANN401
    """Add the entries that OpenVINO's Model API and DL Streamer read, as far as they apply.

    No `model_type`: none of theirs has two inputs. They read images as BGR.
    """
    entries = {
        "labels": " ".join(name.replace(" ", "_") for name in names.values()),
        "resize_type": "standard",
        "reverse_input_channels": "True",
        "scale_values": "255",
    }
    for key, value in entries.items():
        model.set_rt_info(value, ["model_info", key])
