"""Classify the value of `model=` by its name: an architecture, an exported file, or weights."""

from __future__ import annotations

from pathlib import Path

_ARCHITECTURES = {".yaml", ".yml"}
_EXPORTED = {".onnx", ".engine", ".xml"}
_FOLDER = "_openvino_model"


def is_architecture(model: str | Path) -> bool:
    """Whether the path names a YAML file, in any letter case."""
    return Path(model).suffix.lower() in _ARCHITECTURES


def is_exported(model: str) -> bool:
    """Whether the path names a file or folder for another runtime, with fixed size and layers."""
    path = Path(model)
    return path.suffix.lower() in _EXPORTED or path.name.endswith(_FOLDER)
