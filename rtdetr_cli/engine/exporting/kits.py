"""Deployment kits: a folder with the exported file, its configuration and a small program.

The templates are plain files in cfg/kits; each `@NAME@` in a text or file name is substituted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import Any

from rtdetr_cli.backends.contract import (
    INPUTS,
    OUTPUTS,
    RAW_OUTPUTS,
    TOP_PAIRS,
    Value,
    read_names,
    recognise,
)
from rtdetr_cli.backends.notes import required
from rtdetr_cli.backends.onnx.detector import parse_texts
from rtdetr_cli.backends.onnx.int8_on_cpu import restated_for_cpu
from rtdetr_cli.backends.onnx.session import needs_onnx_extra
from rtdetr_cli.backends.tensorrt.detector import read_notes
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.console import warn
from rtdetr_cli.core.errors import BackendError, UsageError, WeightsError
from rtdetr_cli.core.files import asset_dir, atomic_folder

_BATCH = 8
"""Most images per call if the file itself has no limit."""


@dataclass(frozen=True)
class _Exported:
    """Properties of an exported file that kits need.

    Attributes:
        inputs: name to type.
        outputs: name to type.
        names: class names, printable.
        size_hw: height and width of its input images.
        antialias: whether images are resized with antialiasing.
        rows: detections per image; -1 if unknown.
        max_batch: most images per call.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    names: list[str]
    size_hw: tuple[int, int]
    antialias: bool
    rows: int
    max_batch: int = _BATCH


def kit_folder(path: Path, kit: str) -> Path:
    """`best_triton` for `best.onnx`."""
    return path.with_name(f"{path.stem}_{kit.replace('-', '_')}")


def write_kit(kit: str, path: Path) -> Path:
    """Write the kit for an exported file beside it.

    Args:
        kit: one of KITS.
        path: the ONNX file or the engine.

    Returns:
        The folder; an existing one is replaced if it contains only files of a kit.

    Raises:
        UsageError: the file lacks the inputs or outputs that the kit uses.
        BackendError: the engine has no notes.
        WeightsError: the file or its notes are damaged, or its contract is unknown.
        StorageError: the folder cannot be written, or contains other files.
    """
    exported = _read(path)
    _require_contract(kit, path, exported)
    values = _values(path, exported)
    texts = _texts(kit, path, exported, values)
    model = f"{values['NAME']}/1/{values['FILE']}" if kit == "triton" else values["FILE"]
    folder = kit_folder(path, kit)
    with atomic_folder(folder, [*texts, model]) as temporary:
        for name in (*texts, model):
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (temporary / name).write_text(text, encoding="utf-8", newline="\n")
        _write_model(kit, path, temporary / model)
    return folder


def _write_model(kit: str, path: Path, target: Path) -> None:
    """Copy the file; for CPUs an int8 file takes the form that the verdict has also checked."""
    restated = restated_for_cpu(path) if kit.startswith("onnxruntime-") else None
    if restated is None:
        copyfile(path, target)
    else:
        target.write_bytes(restated)


def _texts(kit: str, path: Path, exported: _Exported, values: Mapping[str, str]) -> dict[str, str]:
    """File name to content: the substituted templates and the files with class names."""
    root = asset_dir("cfg") / "kits"
    files = {
        file.relative_to(root / kit).as_posix(): file
        for file in sorted((root / kit).rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }
    if kit == "triton":  # its client resizes images as the Python runner does
        files["resize.py"] = root / "onnxruntime-python" / "resize.py"
    texts = {
        _fill(name, values): _fill(file.read_text("utf-8"), values) for name, file in files.items()
    }
    if kit == "deepstream":
        texts["labels.txt"] = _labels(exported.names)
    elif kit != "onnxruntime-cpp":
        texts["model.json"] = _facts(path, exported)
    return texts


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Substitute the values once; `@NAME@` inside a value stays as it is."""
    return re.sub(r"@([A-Z_]+)@", lambda found: values[found[1]], template)


def _values(path: Path, exported: _Exported) -> dict[str, str]:
    """Value of each `@KEY@`: only numbers, fixed texts and escaped strings."""
    is_engine = path.suffix == ".engine"
    file = "model.plan" if is_engine else "model.onnx"
    height, width = exported.size_hw
    return {
        "NAME": _model_name(path),
        "FILE": file,
        "WIDTH": str(width),
        "HEIGHT": str(height),
        "ANTIALIAS": str(exported.antialias).lower(),
        "ROWS": str(exported.rows),
        "MAX_BATCH": str(exported.max_batch),
        "NUM_CLASSES": str(len(exported.names)),
        "NAMES_CPP": "\n".join(f"    {_cpp_text(name)}," for name in exported.names),
        "BACKEND": "tensorrt" if is_engine else "onnxruntime",
        "PLATFORM": "tensorrt_plan" if is_engine else "onnxruntime_onnx",
    }


def _model_name(path: Path) -> str:
    """The file's stem, restricted to characters valid in folders and URLs."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", path.stem)


def _cpp_text(text: str) -> str:
    """A C++ string literal; all but ASCII letters, digits and spaces become octal escapes."""
    plain = re.compile(r"[A-Za-z0-9 ]")
    letters = (chr(byte) for byte in text.encode("utf-8"))
    return f'"{"".join(c if plain.match(c) else f"{chr(92)}{ord(c):03o}" for c in letters)}"'


def _facts(path: Path, exported: _Exported) -> str:
    """Content of `model.json`, in ASCII."""
    height, width = exported.size_hw
    size = {"width": width, "height": height, "antialias": exported.antialias}
    return json.dumps({"name": _model_name(path), **size, "names": exported.names}, indent=1) + "\n"


def _labels(names: Iterable[str]) -> str:
    """One line per class; DeepStream splits lines at semicolons and skips empty ones."""
    lines = (name.replace(";", ",").strip() or str(n) for n, name in enumerate(names))
    return "".join(f"{line}\n" for line in lines)


def _require_contract(kit: str, path: Path, exported: _Exported) -> None:
    """Reject a file that the kit cannot run.

    Raises:
        UsageError: its inputs or outputs differ from those that the kit uses.
    """
    wanted, hint = (INPUTS, OUTPUTS), ""
    if kit == "deepstream":
        wanted = ({"images": INPUTS["images"]}, RAW_OUTPUTS)
        hint = "; DeepStream fills one input only: export with postprocess=false"
    found = (dict(exported.inputs), dict(exported.outputs))
    if found != wanted:
        needed, given = (" -> ".join(map(_shown, sides)) for sides in (wanted, found))
        raise UsageError(f"kit={kit} needs a file {needed}; {path.name} is {given}{hint}")


def _shown(side: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in side.items())


def _read(path: Path) -> _Exported:
    """Read the properties of an exported file.

    Raises:
        WeightsError: it or its notes are damaged, or its contract is unknown.
    """
    try:
        return _read_engine(path) if path.suffix == ".engine" else _read_onnx(path)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path.name} has damaged metadata: {error!r}") from error


def _read_onnx(path: Path) -> _Exported:
    """Properties from the notes of `rtdetr export`, else from the shapes of a known contract."""
    with needs_onnx_extra():
        import onnx
        from google.protobuf.message import DecodeError
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise WeightsError(f"{path} cannot be opened as ONNX: {error}") from error
    inputs, outputs = (
        [_described(onnx, value) for value in side]
        for side in (model.graph.input, model.graph.output)
    )
    if any(isinstance(value.shape[0], int) for value in inputs if value.shape):
        raise UsageError(f"{path.name} has a fixed batch; kits need a free one")
    texts = {entry.key: entry.value for entry in model.metadata_props}
    notes = parse_texts(texts, path.name)
    if notes is not None:
        if notes.verdict not in {None, "passed"}:
            warn(f"{path.name} itself was {notes.verdict}; its kit can only be as good")
        names = required(notes.names, "names", path.name)
        size_hw = required(notes.preprocessing.size_hw, "preprocessing.size_hw", path.name)
        antialias = required(notes.preprocessing.antialias, "preprocessing.antialias", path.name)
        return _exported(inputs, outputs, names, Preprocessing(size_hw, antialias))
    contract = recognise(inputs, outputs, texts, path.name)
    names, _ = read_names(contract, texts, None)
    preprocessing = Preprocessing(contract.size_hw, contract.antialias)
    return _exported(inputs, outputs, names, preprocessing)


def _described(onnx: Any, value: Any) -> Value:  # noqa: ANN401  (protobuf has no types)
    kinds = {onnx.TensorProto.FLOAT: "tensor(float)", onnx.TensorProto.INT64: "tensor(int64)"}
    tensor = value.type.tensor_type
    kind = kinds.get(tensor.elem_type, onnx.TensorProto.DataType.Name(tensor.elem_type))
    sides = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim]
    return Value(value.name, kind, sides)


def _exported(
    inputs: list[Value],
    outputs: list[Value],
    names: dict[int, str],
    preprocessing: Preprocessing,
) -> _Exported:
    rows = outputs[-1].shape[1] if len(outputs[-1].shape) > 1 else None
    return _Exported(
        inputs={value.name: value.type for value in inputs},
        outputs={value.name: value.type for value in outputs},
        names=list(names.values()),
        size_hw=preprocessing.size_hw,
        antialias=preprocessing.antialias,
        rows=rows if isinstance(rows, int) else -1,
    )


def _read_engine(path: Path) -> _Exported:
    """Properties of an engine, from the notes beside it.

    Raises:
        BackendError: there are none.
    """
    notes = read_notes(path, path.read_bytes())
    if notes is None:
        raise BackendError(f"{path.name} has no notes beside it, which a kit needs")
    origin, own = path.name, notes.preprocessing
    names = list(required(notes.names, "names", origin).values())
    num_queries, batch = required(notes.num_queries, "num_queries", origin), notes.batch
    return _Exported(
        inputs=required(notes.inputs, "inputs", origin),
        outputs=required(notes.outputs, "outputs", origin),
        names=names,
        size_hw=required(own.size_hw, "preprocessing.size_hw", origin),
        antialias=required(own.antialias, "preprocessing.antialias", origin),
        rows=min(TOP_PAIRS, num_queries * len(names)),
        max_batch=batch[-1] if isinstance(batch, tuple) else required(batch, "batch", origin),
    )
