"""Export: writes a network for another runtime and compares the two before it says success.

The file gets its name only if it answers as PyTorch does; the formats stand in backends/.
"""

from __future__ import annotations

from pathlib import Path

from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.core.console import say
from rtdetr_cli.engine.exporting.onnx import export_onnx
from rtdetr_cli.engine.exporting.report import print_report
from rtdetr_cli.weights.store import resolve_weights


def export(settings: ExportSettings) -> Path:
    """Write a file for another runtime.

    Args:
        settings: every key of `rtdetr export`.

    Returns:
        The file.

    Raises:
        UsageError: the model is no checkpoint, or the output has another suffix.
        BackendError: a package is missing, or the file does not answer as PyTorch does; it is
            then kept as `<name>.failed.onnx` with `<name>.failed.report.json`.
    """
    path = resolve_weights(settings.model) if settings.only_kit else _export(settings)
    if settings.kit:
        from rtdetr_cli.engine.exporting.kits import write_kit

        folder = write_kit(settings.kit, path)
        say(f"kit={settings.kit} in {folder}; README.md in it says how to run it")
    return path


def _export(settings: ExportSettings) -> Path:
    """The file alone, in the format that was asked for."""
    if settings.format == "engine":
        from rtdetr_cli.engine.exporting.tensorrt import export_engine  # it stands on this file

        return export_engine(settings)
    if settings.format == "openvino":
        from rtdetr_cli.engine.exporting.openvino import export_openvino  # so does it

        return export_openvino(settings)
    path, report = export_onnx(settings)
    print_report(settings, path, report)
    return path
