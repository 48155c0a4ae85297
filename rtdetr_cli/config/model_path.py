"""What is an exported file, and which keys of predict and val have no effect on one."""

from __future__ import annotations

from pathlib import Path

_EXPORTED = {".onnx", ".engine", ".xml"}
_FOLDER = "_openvino_model"


def is_exported(model: str) -> bool:
    """Whether it is a file or a folder for another runtime, whose size and speed are fixed."""
    path = Path(model)
    return path.suffix.lower() in _EXPORTED or path.name.endswith(_FOLDER)


YAML_SUFFIXES = {".yaml", ".yml"}
