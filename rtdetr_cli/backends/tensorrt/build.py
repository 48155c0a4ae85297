"""Build TensorRT engines from our ONNX files; detector.py runs them.

The types in the graph alone decide the precision (strong typing), never a flag.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rtdetr_cli.backends.contract import INPUTS, OUTPUTS
from rtdetr_cli.backends.notes import ExportNotes
from rtdetr_cli.backends.tensorrt.detector import error_log, running, tensorrt_package
from rtdetr_cli.backends.tensorrt.gpu import Gpu
from rtdetr_cli.core.console import warn
from rtdetr_cli.core.errors import BackendError, StorageError
from rtdetr_cli.core.files import atomic_write, rtdetr_home, sha256


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is built.

    Attributes:
        batch: smallest, tuned and largest number of images in one call.
        workspace: limit of the working memory in GiB; None for no limit.
        tf32: whether float32 products may run in TF32, on Ampere and later.
        version_compatible: whether later releases of TensorRT can load the engine.
        hardware_compatible: whether other GPUs from Ampere on can run the engine.
    """

    batch: tuple[int, int, int] = (1, 1, 8)
    workspace: float | None = None
    tf32: bool = True
    version_compatible: bool = False
    hardware_compatible: bool = False


def build_plan(
    onnx_path: Path, size_hw: tuple[int, int], options: EngineOptions, gpu: Gpu
) -> bytes:
    """Build an engine, which takes minutes.

    Args:
        onnx_path: a file written by `rtdetr export`.
        size_hw: height and width of its input.
        options: profile and limits.
        gpu: the GPU to tune for.

    Raises:
        BackendError: TensorRT cannot read the graph or cannot build it.
    """
    trt, logger = tensorrt_package(), error_log()
    logger.faults.clear()
    timings = _timing_cache_file(trt.__version__, gpu)
    with gpu.work():
        builder = trt.Builder(logger)
        network = builder.create_network(_network_flags(trt))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse_from_file(str(onnx_path)):
            reasons = [parser.get_error(index).desc() for index in range(parser.num_errors)]
            raise BackendError(f"{running()} cannot read {onnx_path}: {'; '.join(reasons[:2])}")
        config = _configure(builder, size_hw, options)
        _load_timings(config, timings)
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BackendError(f"{running()} cannot build {onnx_path}: {logger.reason()}")
    _save_timings(config, timings)
    return bytes(plan)


def engine_notes(
    notes: ExportNotes, onnx_path: Path, plan: bytes, options: EngineOptions, gpu: Gpu
) -> ExportNotes:
    """Extend the notes of the ONNX file by the contract and the build."""
    unread = {
        "workspace": options.workspace,
        "tf32": options.tf32,
        "onnx_sha256": sha256(onnx_path),
    }
    return replace(
        notes,
        inputs=INPUTS,
        outputs=OUTPUTS,
        tensorrt=tensorrt_package().__version__,
        gpu=gpu.name,
        compute_capability=gpu.capability,
        batch=options.batch,
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        extra={**notes.extra, **unread},
    )


def trtexec_line(
    onnx_path: Path, engine_path: Path, size_hw: tuple[int, int], options: EngineOptions
) -> str:
    """The trtexec command (TensorRT 10 and 11) that builds the same engine."""
    words = ["trtexec", f"--onnx={onnx_path}", f"--saveEngine={engine_path}", "--stronglyTyped"]
    for kind, batch in zip(("min", "opt", "max"), options.batch, strict=True):
        shapes = _input_shapes(batch, size_hw).items()
        shown = (f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes)
        words.append(f"--{kind}Shapes={','.join(shown)}")
    more = {
        f"--memPoolSize=workspace:{int(1024 * (options.workspace or 0))}": options.workspace,
        "--noTF32": not options.tf32,
        "--versionCompatible": options.version_compatible,
        "--hardwareCompatibilityLevel=ampere+": options.hardware_compatible,
    }
    return shlex.join([*words, *(word for word, is_wanted in more.items() if is_wanted)])


def _input_shapes(batch: int, size_hw: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    return dict(zip(INPUTS, ((batch, 3, *size_hw), (batch, 2)), strict=True))


def _network_flags(trt: Any) -> int:  # noqa: ANN401
    """Strong typing: a flag from TensorRT 9 on, the only mode from 11 on."""
    flags = trt.NetworkDefinitionCreationFlag
    if hasattr(flags, "STRONGLY_TYPED"):
        return 1 << int(flags.STRONGLY_TYPED)
    return 1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0


def _configure(builder: Any, size_hw: tuple[int, int], options: EngineOptions) -> Any:  # noqa: ANN401
    """Configuration of the builder with one profile; only the batch is free."""
    trt = tensorrt_package()
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    shapes = [_input_shapes(batch, size_hw) for batch in options.batch]
    for name in INPUTS:
        profile.set_shape(name, *(shape[name] for shape in shapes))
    if config.add_optimization_profile(profile) < 0:
        raise BackendError(f"{running()} refuses batch={options.batch}: {error_log().reason()}")
    if options.workspace is not None:
        limit = int(options.workspace * 2**30)
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limit)
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    return config


def _timing_cache_file(version: str, gpu: Gpu) -> Path:
    """Timings are valid for one release and one kind of GPU."""
    name = re.sub(r"\W+", "-", gpu.name)
    return rtdetr_home() / "tensorrt" / f"timings-{version}-{name}.cache"


def _load_timings(config: Any, file: Path) -> None:  # noqa: ANN401
    """Load the timings of earlier builds into the builder."""
    saved = file.read_bytes() if file.is_file() else b""
    cache = config.create_timing_cache(saved)
    if cache is None or not config.set_timing_cache(cache, False):
        warn(f"{file} is damaged; replacing it")
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _save_timings(config: Any, file: Path) -> None:  # noqa: ANN401
    try:
        with atomic_write(file) as temporary:
            temporary.write_bytes(bytes(config.get_timing_cache().serialize()))
    except StorageError as error:  # the engine itself is fine
        warn(f"timings not saved, the next build will be as slow: {error}")
