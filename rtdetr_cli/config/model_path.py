"""What is an exported file, and which keys of predict and val have no effect on one."""

from __future__ import annotations

from pathlib import Path

from rtdetr_cli.config.fields import YAML_SUFFIXES
from rtdetr_cli.core.errors import UsageError

_EXPORTED = {".onnx", ".engine", ".xml"}
_FOLDER = "_openvino_model"


def is_exported(model: str) -> bool:
    """Whether it is a file or a folder for another runtime, whose size and speed are fixed."""
    path = Path(model)
    return path.suffix.lower() in _EXPORTED or path.name.endswith(_FOLDER)


def refuse_runtime_keys(
    mode: str, model: str, half: bool, backend: str, timeout: float | None
) -> None:
    """Refuse `half`, `backend` and `timeout` where they change nothing.

    Raises:
        UsageError: the model is an exported file, has no weights, or its runtime chooses.
    """
    is_fixed = is_exported(model)
    fixed = f"has no effect on {model}, which is exported already"
    reasons = {
        f"half {fixed}; give it to `rtdetr export`": is_fixed and half,
        f"backend={backend} {fixed}": is_fixed and backend != "torch",
        f"timeout has no effect on {model}, which is no exported file": (
            timeout is not None and not is_fixed
        ),
        f"timeout has no effect on {model}: TensorRT cannot be interrupted": (
            timeout is not None and Path(model).suffix.lower() == ".engine"
        ),
        f"backend={backend} needs weights; {model} is an architecture": (
            Path(model).suffix in YAML_SUFFIXES and backend != "torch"
        ),
        "half has no effect with backend=auto, which chooses the precision": (
            half and backend == "auto"
        ),
        "half has no effect with backend=onnx: ONNX Runtime computes float16 as float32 on CPUs": (
            half and backend == "onnx"
        ),
    }
    reason = next((reason for reason, is_there in reasons.items() if is_there), None)
    if reason:
        raise UsageError(f"{mode}: {reason}")
