"""Base classes of the settings: conversion and checks, and the keys that several modes share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from rtdetr_cli.config.fields import (
    Count,
    Family,
    FieldError,
    ImageSize,
    OneOf,
    Queries,
    Seconds,
    convert,
    field_types,
)
from rtdetr_cli.config.model_path import is_architecture, is_exported, why_no_family
from rtdetr_cli.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base class of all settings: convert and check each value on construction."""

    mode: ClassVar[str]
    groups: ClassVar[dict[str, str]] = {}
    """Help page headings, by the first key below each; a class adds to those of its bases."""
    positional: ClassVar[tuple[str, ...]] = ()
    """Keys whose values may be given without `key=`, in this order."""
    given: frozenset[str] = field(
        default=frozenset(), repr=False, compare=False, metadata={"is_key": False}
    )
    """Keys that the user set explicitly; empty if unknown. Not a key itself."""

    def __post_init__(self) -> None:
        for key, hint in field_types(type(self)).items():
            try:
                value = convert(key, getattr(self, key), hint)
            except FieldError as error:
                raise UsageError(f"{self.mode}: {error}") from None
            object.__setattr__(self, key, value)  # the dataclass is frozen
        if getattr(self, "family", None):
            start = getattr(self, "pretrained", None) or getattr(self, "model", None) or ""
            reason = why_no_family(start)
            if reason:
                raise UsageError(f"{self.mode}: {reason}")


@dataclass(frozen=True, kw_only=True)
class RunFolderSettings(Settings):
    """Keys of modes that write a run folder."""

    groups: ClassVar[dict[str, str]] = {"project": "Run folder"}

    project: str = "runs"
    """Parent folder of all runs."""
    name: str
    """Folder of this run; a number is appended if it exists."""
    exist_ok: bool = False
    """Write into an existing run folder."""


@dataclass(frozen=True, kw_only=True)
class ReportSettings(RunFolderSettings):
    """Keys of modes that write a run folder only for their report."""

    report: bool = False
    """Write report.html into a run folder: all that is printed, and images, in one file to mail."""

    def __post_init__(self) -> None:
        super().__post_init__()
        keys = ("project", "name", "exist_ok")
        unused = [key for key in keys if getattr(self, key) != getattr(type(self), key)]
        if unused and not self.report:
            raise UsageError(f"{self.mode}: {unused[0]} has no effect without report=true")


@dataclass(frozen=True, kw_only=True)
class InferenceSettings(Settings):
    """Keys of modes that run a detector."""

    groups: ClassVar[dict[str, str]] = {"imgsz": "Inference"}

    imgsz: ImageSize | None = None
    """Input size in pixels, one number or height,width; None: the model's own."""
    device: str | None = None
    """cpu, cuda, cuda:1, mps or 0; None: cuda, then mps, then cpu."""
    timeout: Seconds | None = None
    """Time limit per image for an exported file, in seconds; None: no limit."""


@dataclass(frozen=True, kw_only=True)
class SpeedSettings(InferenceSettings):
    """Keys that trade accuracy for speed at inference."""

    groups: ClassVar[dict[str, str]] = {"model": "Model and data", "max_det": "Inference"}

    model: str = "rtdetr-l.pt"
    """Weights (.pt), a run folder or an exported file (.onnx, .engine, x_openvino_model)."""
    family: Family | None = None
    """dfine, deim or rtdetrv4, for weights whose tensors and file name do not say which."""
    max_det: Count = 300
    """Maximum number of detections per image."""
    decoder_layers: Count | None = None
    """Number of decoder layers to run, fewer is faster; None: the model's own."""
    num_queries: Queries | None = None
    """Number of queries to select, fewer is faster; None: the model's own."""
    augment: bool = False
    """Detect in each image mirrored and at two other sizes too, and average the boxes."""
    half: bool = False
    """16-bit floats, boxes in float32: float16 on CUDA, bfloat16 on CPUs that support it."""
    backend: Annotated[str, OneOf(("torch", "auto", "onnx", "openvino"))] = "torch"
    """Runtime for weights (.pt) on a CPU: torch, onnx, openvino; auto: the fastest one there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        reason = self._runtime_reason()
        if reason:
            raise UsageError(f"{self.mode}: {reason}")

    def _runtime_reason(self) -> str | None:
        """Explain why `half`, `backend` or `timeout` has no effect; None if each has one."""
        model, backend, is_fixed = self.model, self.backend, is_exported(self.model)
        fixed = f"has no effect on {model}, which is already exported"
        reasons = {
            f"half {fixed}; give it to `rtdetr export`": is_fixed and self.half,
            f"backend={backend} {fixed}": is_fixed and backend != "torch",
            f"timeout has no effect on {model}, which is not an exported file": (
                self.timeout is not None and not is_fixed
            ),
            f"timeout has no effect on {model}: TensorRT cannot be interrupted": (
                self.timeout is not None and Path(model).suffix.lower() == ".engine"
            ),
            f"backend={backend} needs weights; {model} is an architecture": (
                is_architecture(model) and backend != "torch"
            ),
            "half has no effect with backend=auto, which chooses the precision": (
                self.half and backend == "auto"
            ),
            "half has no effect with backend=onnx: ONNX Runtime computes float16 as float32 "
            "on CPUs": self.half and backend == "onnx",
        }
        return next((reason for reason, applies in reasons.items() if applies), None)
