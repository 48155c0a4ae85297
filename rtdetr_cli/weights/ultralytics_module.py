"""Read a pickled Ultralytics module: tensors, class names, norm epsilon.

Works on the inert records of safe_pickle.py; no Ultralytics class is imported or run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rtdetr_cli.core.errors import WeightsError, printable
from rtdetr_cli.weights.architecture import Facts
from rtdetr_cli.weights.plausible import class_names, count, input_size, norm_eps
from rtdetr_cli.weights.safe_pickle import Record, Reference, StoredTensor, shown

MAX_MODULES = 20_000
"""RT-DETR-X has 592; bounds files that contain the same module many times."""


def iter_modules(root: Record, origin: str) -> Iterator[tuple[str, Record]]:
    """Every module with its dotted name, parents before children."""
    waiting: list[tuple[str, Record]] = [("", root)]
    for _ in range(MAX_MODULES):
        if not waiting:
            return
        prefix, module = waiting.pop()
        yield prefix, module
        children = [
            (f"{prefix}{name}.", child)
            for name, child in _mapping(module, "_modules").items()
            if isinstance(child, Record)
        ]
        waiting.extend(reversed(children))
    raise WeightsError(f"{origin} is not an RT-DETR: it has more than {MAX_MODULES} modules")


def stored_state(root: Record, origin: str) -> dict[str, StoredTensor]:
    """The module's state dict: parameters and persistent buffers by name."""
    state = {}
    for prefix, module in iter_modules(root, origin):
        passing = module.get("_non_persistent_buffers_set")
        passing = passing if isinstance(passing, list) else []
        tensors = {**_mapping(module, "_parameters"), **_mapping(module, "_buffers")}
        for name, tensor in tensors.items():
            if isinstance(tensor, StoredTensor) and name not in passing:
                state[f"{prefix}{name}"] = tensor
    return state


def module_facts(root: Record, file: Mapping[Any, Any], origin: str) -> Facts:
    """Metadata of the module and the file.

    Raises:
        WeightsError: It is another network of Ultralytics, or its norms are mixed.
    """
    modules = list(iter_modules(root, origin))
    kind, is_theirs = root.name.rpartition(".")[2], root.name.startswith("ultralytics.")
    if is_theirs and not any(m.name.endswith(".RTDETRDecoder") for _, m in modules):
        raise WeightsError(
            f"{origin} holds Ultralytics' {shown(kind)}, not an RT-DETR; YOLO networks are not "
            "part of this toolkit"
        )
    found = [m.get("eps") for _, m in modules if m.name.endswith("BatchNorm2d")]
    epsilons = {norm_eps(eps) for eps in found}
    if len(epsilons) > 1 or None in epsilons:
        raise WeightsError(
            f"{origin} mixes BatchNorms of different epsilon, which is not supported"
        )
    head = next((m for _, m in modules if m.name.endswith(".RTDETRDecoder")), Record(""))
    aifi = next((m for _, m in modules if m.name.endswith(".AIFI")), Record(""))
    attention = _mapping(aifi, "_modules").get("ma", Record(""))
    depth = _mapping(head, "_modules").get("decoder", Record(""))
    last, layers = depth.get("eval_idx"), count(depth.get("num_layers")) or 0
    arguments = file.get("train_args") or root.get("args")
    arguments = arguments.state if isinstance(arguments, Record) else arguments
    return Facts(
        names=class_names(root.get("names")),
        norm_eps=epsilons.pop() if epsilons else None,
        size_hw=input_size(arguments.get("imgsz") if isinstance(arguments, dict) else None),
        num_queries=count(head.get("num_queries")),
        num_heads=count(head.get("nhead")),
        encoder_heads=count(attention.get("num_heads")),
        eval_layers=last + 1 if isinstance(last, int) and 0 <= last < layers - 1 else None,
        anchor_precision="float16" if _is_half(head.get("anchors")) else None,
        licence=_stamp(file.get("license")),
        notes=tuple(
            printable(f"{key}: {file[key]}", 100)
            for key in ("version", "license")
            if isinstance(file.get(key), str)
        ),
    )


def _stamp(licence: object) -> str:
    """The licence that the file claims for itself."""
    return f"{printable(licence, 100)}, stated in the file" if isinstance(licence, str) else ""


def check_layers(root: Record, parts: Mapping[int, str], origin: str) -> None:
    """Reject changes that names and shapes do not reveal: residuals and activations.

    Raises:
        WeightsError: Names the first layer that differs from ours.
    """
    layers = _mapping(_mapping(root, "_modules").get("model", Record("")), "_modules")
    for index, part in parts.items():
        layer = layers.get(str(index))
        if not isinstance(layer, Record):
            raise WeightsError(f"{origin} is damaged: layer {index} is missing")
        if ".blocks." in part:
            expected: object = not part.endswith(".blocks.0")
            found: object = layer.get("add")
            what = "residual"
        elif part.startswith(("backbone.stages.", "encoder.input_proj.")):
            expected, found, what = "Identity", _activation(layer), "activation"
        elif part.startswith(("encoder.lateral_convs.", "encoder.downsample_convs.")):
            expected, found, what = "SiLU", _activation(layer), "activation"
        else:
            continue
        if found != expected:
            raise WeightsError(
                f"{origin} is not a plain RT-DETR: layer {index} ({part}) has {what} "
                f"{shown(found)} instead of {expected}"
            )


def _activation(layer: Record) -> str:
    activation = _mapping(layer, "_modules").get("act")
    return activation.name.rpartition(".")[2] if isinstance(activation, Record) else "none"


def _mapping(record: object, key: str) -> dict[str, Any]:
    found = record.get(key) if isinstance(record, Record) else None
    return {k: v for k, v in found.items() if isinstance(k, str)} if isinstance(found, dict) else {}


def _is_half(value: object) -> bool:
    """Whether a non-empty tensor of a module was cast to half precision."""
    storage = value.storage if isinstance(value, StoredTensor) and value.size != (0,) else ()
    storage = storage if isinstance(storage, tuple) else ()
    return any(isinstance(part, Reference) and "Half" in part.name for part in storage)
