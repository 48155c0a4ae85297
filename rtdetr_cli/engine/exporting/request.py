"""Inputs and output path of an export: the network, the images to compare on, the file."""

from __future__ import annotations

from pathlib import Path

from rtdetr_cli.backends.load import keys_unlike_stored, load_detector, preprocessing_for
from rtdetr_cli.backends.openvino.detector import FOLDER
from rtdetr_cli.backends.torch import TorchDetector
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.config.model_path import is_architecture
from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.core.console import warn
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.core.files import user_path
from rtdetr_cli.engine.exporting.images import NUM_IMAGES, Images, find_images
from rtdetr_cli.weights.store import resolve_weights

NUM_IMAGES_INT8 = 100
"""With int8, AP decides which blocks stay float, and AP of few images is noisy."""


def open_weights_to_export(settings: ExportSettings) -> tuple[TorchDetector, Preprocessing]:
    """The network at the requested speed and the preprocessing at the requested size.

    Raises:
        UsageError: the model is not a checkpoint.
    """
    device = settings.device or "cpu"
    detector = load_detector(
        settings.model,
        device,
        settings.decoder_layers,
        settings.num_queries,
        family=settings.family,
    )
    if not isinstance(detector, TorchDetector):
        raise UsageError(f"model={settings.model} is an exported file; give the weights (.pt)")
    preprocessing = preprocessing_for(detector, settings.imgsz)
    speed = (settings.decoder_layers, settings.num_queries)
    changed = keys_unlike_stored(detector, settings.imgsz, *speed)
    if detector.calibration and changed:
        warn(
            f"the calibration of {settings.model} is for other settings than {', '.join(changed)} "
            "and is left out: conf=auto will not work with this file"
        )
        detector.calibration = None
    return detector, preprocessing


def images_to_compare(settings: ExportSettings) -> Images | None:
    """Images to compare on; None with verify=false."""
    count = settings.verify_images or (NUM_IMAGES_INT8 if settings.int8 else NUM_IMAGES)
    return find_images(settings.data, count, settings.download) if settings.verify else None


def output_path(settings: ExportSettings) -> Path:
    """Path of the file: as given, else beside the weights (architecture: in this folder).

    `best.onnx`, `best_half.onnx`, `best_int8.engine`, `best_int8_half_openvino_model`.

    Raises:
        UsageError: `output` does not end as the format requires.
    """
    ending = FOLDER if settings.format == "openvino" else f".{settings.format}"
    if settings.output is not None:
        path = user_path(settings.output)
        if not path.name.endswith(ending) or path.name == ending:
            raise UsageError(f"output={settings.output} must end in {ending}")
        return path
    if is_architecture(settings.model):
        model = Path(Path(settings.model).name)
    else:
        model = resolve_weights(settings.model)
    kinds = f"{'_int8' if settings.int8 else ''}{'_half' if settings.half else ''}"
    return model.with_name(f"{model.stem}{kinds}{ending}")
