"""Export to TensorRT: write the ONNX file, build an engine, compare it with ONNX Runtime.

Without TensorRT or a GPU, the ONNX file is kept and the error has the command to build elsewhere.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from rtdetr_cli.backends.notes import ExportNotes
from rtdetr_cli.backends.onnx.detector import OnnxDetector
from rtdetr_cli.backends.tensorrt.build import EngineOptions, build_plan, engine_notes, trtexec_line
from rtdetr_cli.backends.tensorrt.detector import (
    TensorRTDetector,
    notes_file,
    open_gpu,
    running,
    save_engine,
)
from rtdetr_cli.backends.tensorrt.gpu import Gpu
from rtdetr_cli.backends.tensorrt.rules import check_for_tensorrt
from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.core.console import result, result_json, say, warn
from rtdetr_cli.core.errors import BackendError, UsageError
from rtdetr_cli.engine.exporting.onnx import trace_and_compare
from rtdetr_cli.engine.exporting.report import print_report
from rtdetr_cli.engine.exporting.request import images_to_compare, output_path
from rtdetr_cli.engine.exporting.verdict import LIMITS, Agreement, compare, warn_if_unsure
from rtdetr_cli.weights.store import resolve_weights

_ONNX_DEFAULTS: dict[str, Any] = {
    "format": "onnx",
    "kit": None,
    "batch": None,
    "workspace": None,
    "tf32": True,
    "version_compatible": False,
    "hardware_compatible": False,
    "device": None,
    "json": False,
}
"""Keys reset for the intermediate ONNX file, which is compared on the CPU."""


def export_engine(settings: ExportSettings) -> Path:
    """Write an engine, and its notes and the comparison in `<name>.engine.json` beside it.

    Args:
        settings: every key of `rtdetr export`.

    Returns:
        The engine.

    Raises:
        UsageError: the model is a third-party ONNX file, or the output has the wrong suffix.
        BackendError: TensorRT would misread the graph, it or the GPU is missing (the ONNX file
            exists then), the build failed, or the outputs differ from ONNX Runtime's; the engine
            is then kept as `<name>.failed.engine`.
    """
    path, options = output_path(settings), _options(settings)
    gpu, missing = _find_gpu(settings.device)
    faults: list[str] = []
    for sampler in _samplers(settings):
        if faults:
            warn(
                f"{running()}: outputs differ ({'; '.join(faults)}); retrying with "
                f"sampler={sampler}"
            )
        onnx_path = _onnx_file(settings, sampler, path, missing)
        source = OnnxDetector(onnx_path, "cpu")
        _require_ours(source, onnx_path)
        check_for_tensorrt(onnx_path)
        if gpu is None:
            line = trtexec_line(onnx_path, path, source.preprocessing.size_hw, options)
            raise BackendError(
                f"{missing}; elsewhere, run `rtdetr export model={onnx_path} format=engine`, "
                f"or `{line}`"
            )
        plan, notes, agreement = _build(settings, source, onnx_path, options, gpu)
        if agreement is None or agreement.passes:
            save_engine(path, plan, notes)
            _print(settings, path, notes, agreement)
            return path
        faults = agreement.faults
        if _samples_whole_pixels(source):
            break
    failed = path.with_suffix(".failed.engine")
    save_engine(failed, plan, notes)
    raise BackendError(
        f"{running()}: outputs differ from ONNX Runtime: {'; '.join(faults)}; engine kept as "
        f"{failed}; {_advice(settings, notes.precision)}"
    )


def _samplers(settings: ExportSettings) -> tuple[str | None, ...]:
    """Samplers to try in turn; None: the one in the file.

    Some releases of TensorRT compute GridSample of these decoders wrong.
    """
    if _is_onnx(settings.model):
        return (None,)
    return (settings.sampler,) if settings.sampler else ("gather", "grid_sample")


def _advice(settings: ExportSettings, precision: str | None) -> str:
    """Suggest what to try after a wrong engine."""
    more = " or tf32=false" if precision == "tf32" else ""
    if _is_onnx(settings.model):
        return f"give the weights (.pt), which allow trying another sampler{more}"
    return f"try another release of TensorRT{more}"


def _samples_whole_pixels(source: OnnxDetector) -> bool:
    """Whether the decoder samples whole pixels, for which there is one sampler only."""
    architecture = (source.notes and source.notes.architecture) or {}
    return bool(architecture.get("decoder", {}).get("sampling") == "discrete")


def _is_onnx(model: str) -> bool:
    return Path(model).suffix.lower() == ".onnx"


def _options(settings: ExportSettings) -> EngineOptions:
    return EngineOptions(
        batch=settings.batch_range,
        workspace=settings.workspace,
        tf32=settings.tf32,
        version_compatible=settings.version_compatible,
        hardware_compatible=settings.hardware_compatible,
    )


def _find_gpu(device: str | None) -> tuple[Gpu | None, str]:
    """The GPU to build on, or None and the reason."""
    try:
        return open_gpu(device), ""
    except BackendError as error:
        return None, str(error)


def _onnx_file(settings: ExportSettings, sampler: str | None, path: Path, missing: str) -> Path:
    """The ONNX file that TensorRT reads: the given one, or one written beside the engine."""
    if _is_onnx(settings.model):
        return resolve_weights(settings.model)
    if missing:
        warn("the engine cannot be built here; writing its ONNX file only")
    output = str(path.with_suffix(".onnx"))
    onnx_settings = replace(settings, output=output, sampler=sampler, **_ONNX_DEFAULTS)
    onnx_path, report = trace_and_compare(onnx_settings)
    if settings.json:  # one JSON on stdout, that of the engine
        report.write(onnx_path)
    else:
        print_report(onnx_settings, onnx_path, report)
    return onnx_path


def _require_ours(source: OnnxDetector, onnx_path: Path) -> None:
    """Accept only files of `rtdetr export`, which have the inputs, the free batch and the notes.

    Raises:
        UsageError: a third-party file, or it was exported with keys that engines do not support.
    """
    notes = source.notes
    if notes is None:
        raise UsageError(
            f"model={onnx_path} was not written by `rtdetr export`; give the weights (.pt)"
        )
    is_odd = {
        "dynamic=true": notes.dynamic,
        "postprocess=false": notes.postprocess is False,
        f"batch={notes.batch}": notes.batch is not None,
        "input=uint8": source.takes_bytes,
    }
    odd = [words for words, given in is_odd.items() if given]
    if odd:
        raise UsageError(
            f"model={onnx_path} was exported with {', '.join(odd)}, which engines do not "
            "support; give the weights (.pt)"
        )
    if notes.verdict not in {None, "passed"}:
        warn(f"{onnx_path.name} itself was {notes.verdict}; the engine can only be as good")


def _build(
    settings: ExportSettings,
    source: OnnxDetector,
    onnx_path: Path,
    options: EngineOptions,
    gpu: Gpu,
) -> tuple[bytes, ExportNotes, Agreement | None]:
    """The plan, its notes with the verdict, and the comparison; None with verify=false."""
    images = images_to_compare(settings)
    say(f"building with {running()} for {gpu.name}; this takes minutes")
    plan = build_plan(onnx_path, source.preprocessing.size_hw, options, gpu)
    notes = engine_notes(source.notes or ExportNotes(), onnx_path, plan, options, gpu)
    precision = notes.precision or "fp32"
    if precision == "fp32" and options.tf32:
        precision = "tf32"
    notes = replace(notes, precision=precision)
    if images is None:
        return plan, replace(notes, verdict="not compared with ONNX Runtime"), None
    engine = TensorRTDetector(plan, notes, onnx_path.with_suffix(".engine").name, gpu)
    agreement = compare(source, engine, images, LIMITS[precision])
    verdict = "passed" if agreement.passes else "failed"
    compared = {"images": images.origin, "agreement": agreement.to_dict()}
    notes = replace(notes, verdict=verdict, extra={**notes.extra, **compared})
    return plan, notes, agreement


def _print(
    settings: ExportSettings, path: Path, notes: ExportNotes, agreement: Agreement | None
) -> None:
    """Print a summary of the engine and the comparison on stdout."""
    if agreement is None:
        warn("verify=false: the engine was not compared with ONNX Runtime; its notes record this")
    else:
        warn_if_unsure(agreement)
    megabytes = path.stat().st_size / 1e6
    if settings.json:
        facts = {"path": str(path), "megabytes": megabytes, "format": "engine"}
        result_json(json.dumps({**facts, **notes.to_dict()}))
        return
    least, tuned, most = settings.batch_range
    shown = f"{least} to {most} images, tuned for {tuned}"
    if notes.sampler:
        shown += f", sampler={notes.sampler}"
    result(f"{path}: {running()}, {notes.gpu}, {shown}, {megabytes:.1f} MB")
    if agreement:
        result(f"passed: {agreement}")
    say(f"names, build and comparison in {notes_file(path)}")
