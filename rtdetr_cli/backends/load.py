"""Opens any trained detector: the suffix of the file chooses the runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from torch import Tensor

from rtdetr_cli.backends.torch import TorchDetector, build_network, choose_device, torch_detector
from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.config.model_path import YAML_SUFFIXES, is_exported
from rtdetr_cli.config.scale import check_activations
from rtdetr_cli.config.settings.modes import size_hw
from rtdetr_cli.core.console import warn
from rtdetr_cli.core.errors import UsageError, WeightsError
from rtdetr_cli.core.structures import Detections
from rtdetr_cli.weights.catalog import COCO_NAMES
from rtdetr_cli.weights.reader import open_weights
from rtdetr_cli.weights.store import resolve_weights


class Detector(Protocol):
    """What predict and val need, whatever the runtime."""

    names: dict[int, str]
    preprocessing: Preprocessing
    description: str

    def detect(
        self, images: Tensor, sizes_hw: list[tuple[int, int]], max_det: int = 300
    ) -> list[Detections]:
        """Objects in (B, 3, H, W) float RGB images in 0..1, boxes in pixels of the originals."""
        ...


def load_detector(
    model: str,
    device: str | None = None,
    decoder_layers: int | None = None,
    num_queries: int | None = None,
    half: bool = False,
    timeout: float | None = None,
) -> Detector:
    """Open a detector.

    Args:
        model: a checkpoint of any family, an exported file, a published name, or an architecture
            YAML, which gives a network with random weights.
        device: `cpu`, `mps`, `cuda`, `0`...; None takes the best.
        decoder_layers: decoder layers that run; None means all that the model uses.
        num_queries: queries that run; None means those of the architecture.
        half: compute in 16 bits; for weights, an exported file has its own precision.
        timeout: seconds that an image may take in an ONNX file or with OpenVINO; PyTorch and
            TensorRT cannot be interrupted.

    Raises:
        WeightsError: the file is absent, damaged or foreign.
        BackendError: its runtime is missing, or the device has no 16 bits.
        UsageError: a speed setting that an exported file cannot follow.
    """
    if is_exported(model):
        if decoder_layers is not None or num_queries is not None:
            raise UsageError(
                f"decoder_layers and num_queries are fixed inside {model}; "
                "give them to `rtdetr export` instead"
            )
        return _open_exported(resolve_weights(model), device, timeout)
    if Path(model).suffix.lower() in YAML_SUFFIXES:
        warn(f"{model} is an architecture without weights: the answers will be random")
        network = build_network(load_model_config(model), len(COCO_NAMES))
        network.set_speed(decoder_layers, num_queries)
        names, where = dict(COCO_NAMES), choose_device(device)
        return TorchDetector(network, names, Preprocessing(), where, half=half)
    checkpoint = open_weights(resolve_weights(model))
    return torch_detector(checkpoint, device, decoder_layers, num_queries, half)


def _open_exported(path: Path, device: str | None, timeout: float | None) -> Detector:
    if not (path.is_file() or path.is_dir()):
        raise WeightsError(f"{path} is no regular file")
    try:
        return _opened(path, device, timeout)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error


def _opened(path: Path, device: str | None, timeout: float | None) -> Detector:
    if path.suffix.lower() == ".onnx":
        from rtdetr_cli.backends.onnx.detector import OnnxDetector

        return OnnxDetector(path, device, timeout)
    if path.is_dir() or path.suffix.lower() == ".xml":
        from rtdetr_cli.backends.openvino.detector import OpenVINODetector

        return OpenVINODetector(path, device, timeout)
    from rtdetr_cli.backends.tensorrt.detector import open_engine

    return open_engine(path, device)


def preprocessing_for(detector: Detector, imgsz: int | tuple[int, int] | None) -> Preprocessing:
    """The detector's own preprocessing, at the size the user asks for.

    Raises:
        UsageError: an exported file has one size only, or the network's maps would be too large.
    """
    own = detector.preprocessing
    if imgsz is None or size_hw(imgsz) == own.size_hw:
        return own
    if not (hasattr(detector, "network") or getattr(detector, "size_is_free", False)):
        raise UsageError(
            f"imgsz={imgsz}: the exported file takes {own.size_hw[0]}x{own.size_hw[1]} only; "
            "export it again with the size you need"
        )
    if isinstance(detector, TorchDetector):
        check_activations(detector.network.config, size_hw(imgsz), f"imgsz={imgsz}")
    return Preprocessing(size_hw(imgsz), own.antialias)
