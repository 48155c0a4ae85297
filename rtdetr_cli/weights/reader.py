"""Open a weights file of any known family, recognised by its content."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rtdetr_cli.core.bounded_text import parse_json, read_bounded, show
from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.weights.architecture import Facts, shipped_configs
from rtdetr_cli.weights.archive import TorchArchive
from rtdetr_cli.weights.backbone import Backbone, is_backbone, read_backbone
from rtdetr_cli.weights.checkpoint import FORMAT, Checkpoint, is_ours, parse_checkpoint
from rtdetr_cli.weights.decoder_family import check_told
from rtdetr_cli.weights.foreign import read_foreign
from rtdetr_cli.weights.licence import recorded_licence
from rtdetr_cli.weights.paddle import read_arrays
from rtdetr_cli.weights.plausible import class_names, count, input_size, norm_eps
from rtdetr_cli.weights.safe_pickle import Inert, Record, StoredTensor
from rtdetr_cli.weights.safetensors_file import read_safetensors
from rtdetr_cli.weights.size_limit import check_scale
from rtdetr_cli.weights.trained_on import TrainedOn, trained_on
from rtdetr_cli.weights.ultralytics import layer_parts
from rtdetr_cli.weights.ultralytics_module import check_layers, module_facts, stored_state
from rtdetr_cli.weights.values import check_values

MAX_HEADER_BYTES = 2 * 2**20
"""Header of a safetensors file; 1000 tensors need 0.12 MB."""

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"


@dataclass(frozen=True)
class Request:
    """How to open a file."""

    dtype: torch.dtype = torch.float32
    """Of the floating-point weights in memory, whatever the file has."""
    family: str | None = None
    """dfine, deim or rtdetrv4, for files whose tensors and name do not say which."""


def open_weights(
    path: Path | str, dtype: torch.dtype = torch.float32, family: str | None = None
) -> Checkpoint:
    """Open a checkpoint: ours, official, Paddle, Hugging Face (file or folder), Ultralytics.

    Nothing in the file is executed.

    Args:
        path: the file, or a Hugging Face folder.
        dtype: dtype of the floating-point weights in memory, whatever the file has.
        family: dfine, deim or rtdetrv4, for files whose tensors and name do not say which.

    Raises:
        WeightsError: The file is missing, damaged, unsafe, of an unknown or another family or only
            a backbone, or its weights are not finite.
    """
    found = open_pretrained(path, dtype, family)
    if isinstance(found, Backbone):
        fitting = (c.name for c in shipped_configs() if c.backbone == found.config)
        architecture = next(fitting, "ARCHITECTURE")
        raise WeightsError(
            f"{found.origin} is only a backbone, not a detector; train one from it: "
            f"rtdetr train model={architecture}.yaml pretrained={found.origin}"
        )
    return found


def open_pretrained(
    path: Path | str, dtype: torch.dtype = torch.float32, family: str | None = None
) -> Checkpoint | Backbone:
    """Open a file that training can start from: a detector, as in `open_weights`, or a backbone.

    Raises:
        WeightsError: The file is missing, damaged, unsafe, of an unknown family, or its weights
            are not finite.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    found = _open(path, Request(dtype, family))
    if isinstance(found, Checkpoint):
        check_told(found.config, family, path.name)
        check_scale(found, path.name)
    check_values(found.weights, path.name)
    return found


def read_trained_on(path: Path) -> TrainedOn | None:
    """Read what a file of ours or Ultralytics' was trained on, without reading a tensor.

    Returns:
        None if the file does not say, or names no data set that could be looked up.

    Raises:
        WeightsError: The file is missing, damaged or unsafe.
    """
    if path.is_dir() or not _first_bytes(path).startswith(_ZIP):
        return None
    with TorchArchive(path) as archive:
        tree = archive.tree if isinstance(archive.tree, dict) else {}
    recorded = tree.get("trained_on" if is_ours(tree) else "train_args")
    recorded = recorded.state if isinstance(recorded, Record) else recorded
    try:
        return trained_on(recorded)
    except (KeyError, TypeError, ValueError):
        return None


def _open(path: Path, request: Request) -> Checkpoint | Backbone:
    """Open a file according to its first bytes."""
    head = _first_bytes(path)
    if head.startswith(_ZIP):
        with TorchArchive(path) as archive:
            if is_ours(archive.tree):
                return parse_checkpoint(archive, request.dtype)
            return _read_archive(archive, request)
    if head[8:9] == b"{":
        return _read_safetensors(path, request)
    if head.startswith(_PICKLE):
        return _read_paddle(path, request)
    raise WeightsError(
        f"{path.name} is not a checkpoint: it is neither a torch archive nor a safetensors file"
    )


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except FileNotFoundError:
        raise WeightsError(f"{path} does not exist") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from None


def _read_state(state: dict[str, Tensor], origin: str, facts: Facts) -> Checkpoint | Backbone:
    """Read a third-party state dict."""
    if is_backbone(state):
        return read_backbone(state, origin)
    return read_foreign(state, origin, facts)


def _read_archive(archive: TorchArchive, request: Request) -> Checkpoint | Backbone:
    """Read a third-party torch file: a possibly nested state dict, or a pickled module."""
    file = archive.tree if isinstance(archive.tree, dict) else {}
    model, place = _find_model(archive.tree, archive.origin)
    is_module = isinstance(model, Record)
    stored = stored_state(model, archive.origin) if is_module else model
    state = {
        key: archive.tensor(tensor, request.dtype)
        for key, tensor in stored.items()
        if isinstance(key, str) and isinstance(tensor, StoredTensor)
    }
    own = Facts(licence=recorded_licence(file))
    facts = module_facts(model, file, archive.origin) if is_module else own
    if is_module:
        check_layers(model, layer_parts(state, archive.origin), archive.origin)
    if place:
        facts = replace(facts, notes=(*facts.notes, f"weights taken from {place}"))
    return _read_state(state, archive.origin, replace(facts, family=request.family))


def _find_model(tree: Inert, origin: str) -> tuple[Inert, str]:
    """The preferred weights in a file and their key: averaged before raw ones."""
    file = tree if isinstance(tree, dict) else {}
    average = file.get("ema")
    places = {
        "ema.module": average.get("module") if isinstance(average, dict) else None,
        "ema": average,
        "model": file.get("model"),
        "state_dict": file.get("state_dict"),
        "": tree,
    }
    for place, model in places.items():
        if isinstance(model, Record):
            return model, place
        if isinstance(model, dict) and any(isinstance(v, StoredTensor) for v in model.values()):
            return model, place
    raise WeightsError(f"{origin} is a torch file without weights")


def _read_paddle(path: Path, request: Request) -> Checkpoint | Backbone:
    """Read a bare pickle: the arrays in a dict written by Paddle."""
    state, others = read_arrays(path, request.dtype)
    notes = (f"entries that are not weights dropped: {', '.join(others[:3])}",) if others else ()
    return _read_state(state, path.name, Facts(notes=notes, family=request.family))


def _read_safetensors(path: Path, request: Request) -> Checkpoint | Backbone:
    header = int.from_bytes(_first_bytes(path)[:8], "little")
    if header > MAX_HEADER_BYTES:
        raise WeightsError(f"{path.name} is damaged: its header has {header} bytes")
    state: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            for name in file.keys():  # noqa: SIM118  (not a mapping)
                tensor = file.get_tensor(name)
                state[name] = tensor.to(request.dtype) if tensor.is_floating_point() else tensor
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path.name} is damaged: {error}") from None
    if FORMAT in metadata:
        return read_safetensors(metadata[FORMAT], state, path.name)
    facts = _folder_facts(path.parent)
    licence = recorded_licence(metadata) or facts.licence
    facts = replace(facts, licence=licence, family=request.family)
    return _read_state(state, path.name, facts)


def _folder_facts(folder: Path) -> Facts:
    """Metadata from the JSON files next to Hugging Face weights."""
    config = _read_json(folder / "config.json")
    size = _read_json(folder / "preprocessor_config.json").get("size")
    card = folder / "README.md"
    names, scale = config.get("id2label"), config.get("reg_scale")
    return Facts(
        names=class_names(_by_number(names)) if isinstance(names, dict) else None,
        norm_eps=norm_eps(config.get("batch_norm_eps")),
        num_queries=count(config.get("num_queries")),
        num_heads=count(config.get("decoder_attention_heads")),
        families=_folder_families(config),
        reg_scale=float(scale) if isinstance(scale, int | float) else None,
        sampling="discrete" if config.get("decoder_method") == "discrete" else None,
        size_hw=input_size([size.get("height"), size.get("width")])
        if isinstance(size, dict)
        else None,
        licence=_card_licence(card) if card.is_file() else "",
    )


def _folder_families(config: dict[str, Any]) -> tuple[str, ...]:
    """Families that config.json of a D-FINE allows; transformers leaves its default, relu, out."""
    if config.get("model_type") != "d_fine":
        return ()
    activation = config.get("decoder_activation_function", "relu")
    if activation not in {"relu", "silu"}:
        found = show(activation)
        raise WeightsError(f"config.json: decoder_activation_function {found} is not relu or silu")
    return ("dfine",) if activation == "relu" else ("deim", "rtdetrv4")


def _card_licence(card: Path) -> str:
    """The licence in the head of a model card; empty if it has none."""
    with card.open(encoding="utf-8", errors="replace") as file:
        head = file.read(4000)
    found = re.search(r"^license:[ \t]*([\w.-]{1,60})[ \t]*$", head, re.MULTILINE)
    return f"{found[1]}, stated in its model card" if found else ""


def _by_number(names: dict[str, Any]) -> dict[int, Any]:
    """Convert the keys, strings in JSON, to class indices; other keys are dropped."""
    return {int(index): name for index, name in names.items() if re.fullmatch("[0-9]{1,9}", index)}


def _read_json(path: Path) -> dict[str, Any]:
    """Read the mapping in a small JSON file; empty if the file is missing."""
    if not path.is_file():
        return {}
    try:
        values = parse_json(read_bounded(path))
    except ValueError as error:
        raise WeightsError(f"{path} is damaged: {error}") from None
    if not isinstance(values, dict):
        raise WeightsError(f"{path} is damaged: it is not a mapping")
    return values
