"""Open a trained detector; the suffix of the file selects the runtime.

Each runtime is imported when a file needs it.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.config.model_path import is_architecture, is_exported
from rtdetr_cli.config.scale import check_activations
from rtdetr_cli.config.settings.modes import size_hw
from rtdetr_cli.core.coco_classes import COCO_NAMES
from rtdetr_cli.core.console import warn
from rtdetr_cli.core.detections import ALL_PAIRS, Detections, Images, Selection
from rtdetr_cli.core.errors import BackendError, UsageError, WeightsError
from rtdetr_cli.core.memory import collection_paused
from rtdetr_cli.weights.calibration import Calibration
from rtdetr_cli.weights.store import resolve_weights

if TYPE_CHECKING:  # exported files run without torch
    import torch

    from rtdetr_cli.nn.rtdetr import RTDETRNetwork


class Detector(Protocol):
    """A detector in any runtime.

    Attributes:
        names: class index to name.
        preprocessing: how images become its input.
        description: model, runtime and device, for messages.
        size_is_free: whether it takes images of other sizes than `preprocessing.size_hw`.
        calibration: how to read its scores; None if the file has none.
    """

    names: dict[int, str]
    preprocessing: Preprocessing
    description: str
    size_is_free: bool
    calibration: Calibration | None

    @property
    def network(self) -> RTDETRNetwork | None:
        """The PyTorch module; None in exported files."""

    @property
    def device(self) -> torch.device | None:
        """Device of the network; None in exported files, whose runtime decides."""

    def detect(
        self,
        images: Images,
        sizes_hw: list[tuple[int, int]],
        max_det: int = 300,
        selection: Selection = ALL_PAIRS,
    ) -> list[Detections]:
        """Find objects in (B, 3, H, W) float RGB in 0..1; boxes in pixels of the originals.

        The best `max_det` pairs of `selection` are returned; a file that contains the selection of
        the best pairs of all classes returns those of `selection` among them.
        """
        ...


def load_detector(
    model: str,
    device: str | None = None,
    decoder_layers: int | None = None,
    num_queries: int | None = None,
    half: bool = False,
    timeout: float | None = None,
    family: str | None = None,
) -> Detector:
    """Open a detector.

    Args:
        model: a checkpoint of any family, an exported file, a published name, or an architecture
            YAML, which gives a network with random weights.
        device: `cpu`, `mps`, `cuda`, `0`...; None selects the best.
        decoder_layers: decoder layers to run; None for all.
        num_queries: queries to run; None for those of the architecture.
        half: compute in 16 bits; has no effect on exported files.
        timeout: seconds per image with ONNX Runtime and OpenVINO; PyTorch and TensorRT cannot be
            interrupted.
        family: dfine, deim or rtdetrv4, for weights that do not say it themselves.

    Raises:
        WeightsError: the file is missing, damaged or of an unknown format or family.
        BackendError: its runtime is missing, or the device does not support 16 bits.
        UsageError: a speed setting for an exported file.
    """
    if is_exported(model):
        if decoder_layers is not None or num_queries is not None:
            raise UsageError(
                f"decoder_layers and num_queries are fixed inside {model}; "
                "set them in `rtdetr export` instead"
            )
        return _open_exported(resolve_weights(model), device, timeout)
    return _open_in_torch(model, device, decoder_layers, num_queries, half, family)


@collection_paused()
def _open_in_torch(
    model: str,
    device: str | None,
    decoder_layers: int | None,
    num_queries: int | None,
    half: bool,
    family: str | None,
) -> Detector:
    if find_spec("torch") is None:
        raise BackendError(f"{model} needs PyTorch: pip install torch torchvision")
    from rtdetr_cli.backends.torch import (
        TorchDetector,
        build_network,
        choose_device,
        torch_detector,
    )
    from rtdetr_cli.weights.reader import open_weights

    if is_architecture(model):
        warn(f"{model} is an architecture without weights: the detections will be random")
        config, names = load_model_config(model), dict(COCO_NAMES)
        network = build_network(config, len(names))
        network.set_speed(decoder_layers, num_queries)
        own, where = Preprocessing(config.size_hw), choose_device(device)
        return TorchDetector(network, names, own, where, half=half)
    checkpoint = open_weights(resolve_weights(model), family=family)
    return torch_detector(checkpoint, device, decoder_layers, num_queries, half)


def _open_exported(path: Path, device: str | None, timeout: float | None) -> Detector:
    if not (path.is_file() or path.is_dir()):
        raise WeightsError(f"{path} is not a regular file")
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
    """The preprocessing of a detector at the requested size.

    Raises:
        UsageError: the exported file has a fixed size, or the feature maps would be too large.
    """
    own = detector.preprocessing
    if imgsz is None or size_hw(imgsz) == own.size_hw:
        return own
    if not detector.size_is_free:
        raise UsageError(
            f"imgsz={imgsz}: the exported file takes {own.size_hw[0]}x{own.size_hw[1]} only; "
            "export it again with the size you need"
        )
    if detector.network is not None:
        check_activations(detector.network.config, size_hw(imgsz), f"imgsz={imgsz}")
    return Preprocessing(size_hw(imgsz), own.antialias)


def keys_unlike_stored(
    detector: Detector,
    imgsz: int | tuple[int, int] | None,
    decoder_layers: int | None,
    num_queries: int | None,
) -> list[str]:
    """Keys with which the network runs in another way than the one its calibration is for."""
    own: dict[str, object] = {"imgsz": detector.preprocessing.size_hw}
    if detector.network is not None:
        decoder = detector.network.config.decoder
        own["decoder_layers"] = decoder.eval_layers or decoder.num_layers
        own["num_queries"] = decoder.num_queries
    given = {
        "imgsz": imgsz and size_hw(imgsz),
        "decoder_layers": decoder_layers,
        "num_queries": num_queries,
    }
    return [key for key, value in given.items() if value is not None and value != own.get(key)]
