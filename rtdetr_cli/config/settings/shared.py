"""What the settings of all modes have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rtdetr_cli.config.fields import FieldError, convert, field_types
from rtdetr_cli.config.model_path import is_architecture, is_exported
from rtdetr_cli.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all modes share: values are converted and checked as they come in."""

    mode: ClassVar[str]
    groups: ClassVar[dict[str, str]]
    """Headings of the help page, by the first key under each."""
    given: ClassVar[frozenset[str]] = frozenset()
    """Keys that the user named, where it is known."""

    def __post_init__(self) -> None:
        for key, hint in field_types(type(self)).items():
            try:
                value = convert(key, getattr(self, key), hint)
            except FieldError as error:
                raise UsageError(f"{self.mode}: {error}") from None
            object.__setattr__(self, key, value)


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
            is_architecture(model) and backend != "torch"
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
