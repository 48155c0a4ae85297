"""OpenVINO: writes a folder from our ONNX graph, and runs such folders on CPUs.

`best_openvino_model/` holds best.xml and best.bin, the graph as OpenVINO's tools read it, and
metadata.json, what our reader needs. Inputs and outputs are those of our ONNX files. What stays
float32 in 16 bits, and float in int8, is chosen in float32.py and int8.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtdetr_cli.backends.contract import Value, read_names, recognise
from rtdetr_cli.backends.graph_detector import Feed, OutputFilter, detect_in_parts, too_slow
from rtdetr_cli.backends.notes import checked_notes
from rtdetr_cli.backends.onnx.detector import FORMAT_VERSION
from rtdetr_cli.backends.onnx.graph import TOP_PAIRS
from rtdetr_cli.backends.openvino.float32 import keep_float32, mark_float32
from rtdetr_cli.backends.openvino.int8 import blocks, quantize
from rtdetr_cli.backends.openvino.package import (
    openvino_package,
    runtime_errors,
    same_signal_stack,
    version,
)
from rtdetr_cli.backends.torch import choose_device
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.bounded_text import parse_json, read_bounded
from rtdetr_cli.core.bounded_yaml import parse_yaml
from rtdetr_cli.core.console import warn
from rtdetr_cli.core.errors import BackendError, WeightsError
from rtdetr_cli.core.structures import Detections

FOLDER = "_openvino_model"
"""How the names of such folders end, as in other tools."""
NOTES = "metadata.json"
_THEIR_NOTES = "metadata.yaml"
_ONNX_TYPES = {"f32": "tensor(float)", "i64": "tensor(int64)"}


class OpenVINODetector:
    """A detector in a folder, run by OpenVINO; those of Ultralytics open too (contract.py).

    Attributes:
        names: class index to name.
        preprocessing: how images become its input.
        size_is_free: whether the graph takes images of other sizes as well.
        description: for people: folder, runtime, precision; of a folder by others the contract and
            whose class names are used.
        metadata: what `rtdetr export` noted; empty in folders by others.
    """

    def __init__(self, path: Path, device: str | None = None, timeout: float | None = None) -> None:
        """Open a folder.

        Args:
            path: the folder, or the .xml in it.
            device: `cpu` or None; nothing else runs it.
            timeout: seconds that an image may take; the runtime stops between two operators.

        Raises:
            WeightsError: no such folder, damaged, or its inputs and outputs are others; with a
                timeout also a graph with loops, which OpenVINO does not interrupt.
            BackendError: OpenVINO is missing, or the device is no CPU.
        """
        if device is not None and choose_device(device).type != "cpu":
            raise BackendError(f"device={device}: OpenVINO runs on the CPU here; give device=cpu")
        xml = graph_file(path)
        self._path = xml.parent if xml.parent.name.endswith(FOLDER) else xml
        self.metadata, notes = read_notes_beside(xml)
        floats = self.metadata.get("floats", "f32")
        model, self._compiled, runtime = _compile(xml, floats)
        self._timeout = timeout
        if timeout is not None:
            _refuse_loops(model, self._path.name)
        with runtime_errors(WeightsError, f"{xml} cannot be opened by OpenVINO"):
            inputs, outputs = _ports(model.inputs), _ports(model.outputs)
        self._contract = recognise(inputs, outputs, notes, self._path.name)
        by_name = {port.name: index for index, port in enumerate(outputs)}
        self._outputs = [by_name[name] for name in self._contract.outputs]
        self.names, whose = read_names(self._contract, notes, self.metadata)
        self._filter = OutputFilter(self._path.name, self.names, whose)
        own = self.metadata.get("preprocessing", {})
        antialias = own.get("antialias", self._contract.antialias)
        self.preprocessing = Preprocessing(self._contract.size_hw, antialias)
        self.size_is_free = self._contract.size_is_free
        self.description = f"{self._path.name}, {runtime}"
        if not self.metadata:
            self.description += f"; {self._contract.family}, class names: {whose}"

    def detect(
        self, images: Tensor, sizes_hw: list[tuple[int, int]], max_det: int = TOP_PAIRS
    ) -> list[Detections]:
        """Find objects.

        Args:
            images: (B, 3, H, W) float RGB in 0..1, H and W as in `preprocessing`.
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
        """One call of the runtime."""
        with runtime_errors(BackendError, f"{self._path.name} failed"), same_signal_stack():
            if self._timeout is None:
                answers = self._compiled(feed).to_tuple()
            else:
                answers = self._run_within(self._timeout, feed)
        return [answers[index] for index in self._outputs]

    def _run_within(self, timeout: float, feed: Feed) -> tuple[Any, ...]:
        count = len(feed[self._contract.image])
        request = self._compiled.create_infer_request()
        request.start_async(feed)
        if not request.wait_for(math.ceil(1000 * timeout * count)):
            request.cancel()
            with suppress(RuntimeError):  # says that it was cancelled
                request.wait()
            raise too_slow(self._path.name, count, timeout)
        request.wait()
        answers: tuple[Any, ...] = request.results.to_tuple()
        return answers


def graph_file(path: Path) -> Path:
    """The .xml that is meant: itself, or the one in a folder.

    Raises:
        WeightsError: there is none, several, or no .bin beside it.
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
) -> dict[str, Any]:
    """Write a network from its float32 ONNX file.

    Args:
        folder: an empty one; its name without `_openvino_model` is that of the files in it.
        onnx_path: written by `write_onnx`.
        half: whether floats are bf16 where that is safe.
        calibration: inputs of real images; they make the convolutions int8.
        kept_float: blocks that stay float then.

    Returns:
        The notes, which stand in metadata.json too.

    Raises:
        BackendError: OpenVINO or NNCF is missing.
    """
    openvino = openvino_package()
    model = openvino.Core().read_model(onnx_path)
    if calibration is not None:
        model = quantize(model, calibration, kept_float)
    texts = model.get_rt_info("framework").value  # the metadata of the ONNX file
    notes = {key: json.loads(text) for key, text in texts.items()}
    notes["precision"] = "int8" if calibration is not None else "bf16" if half else "fp32"
    notes["floats"] = "bf16" if half else "f32"
    notes["openvino"] = version()
    _tell_model_api(model, notes)
    exact = keep_float32(model) if half else set()
    xml = folder / f"{folder.name.removesuffix(FOLDER)}.xml"
    openvino.save_model(model, xml, compress_to_fp16=False)
    mark_float32(xml, exact)
    write_notes(folder, notes)
    return notes


def int8_blocks(onnx_path: Path) -> list[str]:
    """The parts of a network that can be int8, front to back."""
    return blocks(openvino_package().Core().read_model(onnx_path))


def write_notes(folder: Path, notes: dict[str, Any]) -> None:
    """Write metadata.json."""
    text = json.dumps(notes, indent=2, ensure_ascii=False) + "\n"
    (folder / NOTES).write_text(text, encoding="utf-8")


def folder_files(folder: Path) -> list[str]:
    """Names of the files in a folder of ours."""
    stem = folder.name.removesuffix(FOLDER)
    return [f"{stem}.xml", f"{stem}.bin", NOTES]


def _compile(xml: Path, floats: str) -> tuple[Any, Any, str]:
    """The graph as it was read, and made ready, and for people what runs it.

    The precision is always said: left alone, CPUs with bf16 take it for every graph.
    """
    openvino = openvino_package()
    core = openvino.Core()
    if floats == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        warn(f"this CPU has no instructions for bf16: {xml.name} runs in float32")
        floats = "f32"
    options = {
        "INFERENCE_PRECISION_HINT": floats,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),  # physical cores, or OMP_NUM_THREADS
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
    """Refuse operators with a graph of their own, which may take for ever.

    Raises:
        WeightsError: there is one.
    """
    found = {"If", "Loop", "TensorIterator"} & {op.get_type_name() for op in model.get_ops()}
    if found:
        raise WeightsError(
            f"{name} has the operator {min(found)}, which OpenVINO does not interrupt: run it "
            "without timeout, or as ONNX"
        )


def _ports(side: list[Any]) -> list[Value]:
    """Outputs of graphs converted from PyTorch have no names, or one that says nothing."""
    ports: list[Value] = []
    for index, port in enumerate(side):
        kind = port.element_type.get_type_name()
        sizes = [size.get_length() if size.is_static else "?" for size in port.partial_shape]
        name = port.any_name if port.names else "Result_"
        name = f"output{index}" if name.startswith("Result_") else name
        ports.append(Value(name, _ONNX_TYPES.get(kind, f"tensor({kind})"), sizes))
    return ports


def read_notes_beside(file: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Ours decoded, empty in a folder by others; and theirs as texts.

    Raises:
        WeightsError: they are damaged, or of another format version.
    """
    folder = file.parent
    ours, theirs = folder / NOTES, folder / _THEIR_NOTES
    try:
        if theirs.is_file() and not ours.is_file():
            found = parse_yaml(read_bounded(theirs)) or {}
            return {}, {str(key): str(value) for key, value in dict(found).items()}
        notes = parse_json(read_bounded(ours)) if ours.is_file() else {}
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{folder.name} has damaged metadata: {error}") from error
    found_version = notes.get("rtdetr_format") if isinstance(notes, dict) else None
    if notes and found_version != FORMAT_VERSION:
        raise WeightsError(
            f"{ours} has format version {found_version}; this rtdetr reads {FORMAT_VERSION}"
        )
    return checked_notes(notes, folder.name), {}


def _tell_model_api(model: Any, notes: dict[str, Any]) -> None:  # noqa: ANN401
    """What OpenVINO's Model API and DL Streamer read in a graph, as far as it is true here.

    No `model_type`: none of theirs has two inputs. They read images as BGR.
    """
    labels = [str(name).replace(" ", "_") for name in notes["names"].values()]
    told = {
        "labels": " ".join(labels),
        "resize_type": "standard",
        "reverse_input_channels": "True",
        "scale_values": "255",
    }
    for key, value in told.items():
        model.set_rt_info(value, ["model_info", key])
