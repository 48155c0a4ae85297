"""Export: dispatch to the exporter of a format in exporting/, write the kit, say what is next."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.core.callbacks import Callbacks
from rtdetr_cli.core.console import say
from rtdetr_cli.engine.exporting.kits import write_kit
from rtdetr_cli.engine.exporting.onnx import export_onnx
from rtdetr_cli.engine.exporting.openvino import export_openvino
from rtdetr_cli.engine.exporting.tensorrt import export_engine
from rtdetr_cli.engine.session.states import ExportState
from rtdetr_cli.weights.store import resolve_weights

_EXPORTERS: dict[str, Callable[[ExportSettings], Path]] = {
    "onnx": export_onnx,
    "openvino": export_openvino,
    "engine": export_engine,
}


def export(settings: ExportSettings, callbacks: Callbacks | None = None) -> Path:
    """Write a model in another format, check it against PyTorch, and print the next commands.

    Args:
        settings: every key of `rtdetr export`.
        callbacks: functions called at its start and end.

    Raises:
        UsageError, BackendError: see `export_file`.
    """
    state, callbacks = ExportState(settings), callbacks or Callbacks()
    callbacks.call("on_export_start", state)
    state.file = path = export_file(settings)
    if settings.postprocess and not settings.kit:
        model = f"model={path}"
        predict = shlex.join(["rtdetr", "predict", model, "source=your.jpg"])
        labelled = (
            settings.data and not Path(settings.data).is_dir()
        )  # of a folder of images there are none
        data = settings.data if labelled else "your.yaml"
        val = shlex.join(["rtdetr", "val", model, f"data={data}"])
        say("next:", f"  {predict}", f"  {val}")
    callbacks.call("on_export_end", state)
    return path


def export_file(settings: ExportSettings) -> Path:
    """Write a model in another format and check it against PyTorch.

    Args:
        settings: every key of `rtdetr export`.

    Returns:
        The file, or the folder of OpenVINO.

    Raises:
        UsageError: the model is not a checkpoint, or the output has the wrong suffix.
        BackendError: a package is missing, or the outputs differ from PyTorch's; the file is then
            kept under a name that contains `failed`.
    """
    if settings.only_kit:
        path = resolve_weights(settings.model)
    else:
        path = _EXPORTERS[settings.format](settings)
    if settings.kit:
        folder = write_kit(settings.kit, path)
        say(f"kit={settings.kit} in {folder}; README.md explains how to run it")
    return path
