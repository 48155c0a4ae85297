"""An open model: its file, device and network. The base of RTDETR (api.py), which has the modes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rtdetr_cli.backends.load import Detector, load_detector
from rtdetr_cli.config.load import load_model_config, model_config_to_dict
from rtdetr_cli.config.model import ModelConfig, Preprocessing
from rtdetr_cli.config.model_path import is_architecture, is_exported
from rtdetr_cli.config.settings.modes import InfoSettings
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.core.coco_classes import COCO_NAMES
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.engine.predict import adapt
from rtdetr_cli.weights.store import resolve_weights

if TYPE_CHECKING:  # exported files run without torch
    import torch
    from torch import Tensor, nn

    from rtdetr_cli.nn.rtdetr import RTDETRNetwork

Self = TypeVar("Self", bound="OpenedModel")


class OpenedModel:
    """A detector: weights, an exported file, or an architecture without weights.

    It can be copied and pickled; an exported file is then opened again from its path.

    Attributes:
        ckpt_path: the open model; after `train`, the best checkpoint of that run.
        overrides: model and task; further entries are defaults for every call that has such a key.
        task: always `detect`.
    """

    task = "detect"
    _architecture: str | None
    _detector: Detector | None
    _adapted: tuple[object, Detector] | None

    def __init__(
        self,
        model: str | Path = "rtdetr-l.pt",
        device: str | int | None = None,
        family: str | None = None,
    ) -> None:
        """Open a detector.

        Args:
            model: weights of any family (.pt), an exported file (.onnx), an architecture (.yaml)
                or a published name.
            device: cpu, cuda, cuda:1, mps or 0; None: the first available of cuda, mps and cpu.
            family: dfine, deim or rtdetrv4, for weights whose tensors and name do not say which.

        Raises:
            UsageError: `family` has no effect, or is another word.
            WeightsError: the file is absent, damaged or foreign.
            BackendError: the device or the runtime is missing.
        """
        self._device = None if device is None else str(device)
        self._half = False
        self.overrides: dict[str, object] = {"task": self.task}
        self._point_at(str(model), family=family)
        if family is not None:
            InfoSettings(model=self.ckpt_path, family=family)  # refuses what it does not fit
        if self._architecture:
            load_model_config(self.ckpt_path)  # fail early; the network is built on demand
        else:
            self._open()

    def load(self: Self, weights: str | Path) -> Self:
        """Open other weights; `train` starts from them and keeps an architecture (.yaml)."""
        other = type(self)(weights, self._device)
        architecture = self._architecture
        self._point_at(other.ckpt_path, other._detector)
        self._architecture = architecture
        return self

    def reset_weights(self: Self) -> Self:
        """Return to random weights of the same architecture; `train` then starts from scratch.

        Raises:
            UsageError: an exported file, or an architecture that is not shipped.
        """
        from rtdetr_cli.weights.architecture import shipped_configs

        config = self._network().config
        name = f"{config.name}.yaml"
        if config.name not in {one.name for one in shipped_configs() if _same_size(one, config)}:
            raise UsageError(
                f"{self.ckpt_path} has an architecture of its own; RTDETR('its.yaml') starts from "
                "random weights"
            )
        self._point_at(name)
        return self

    def to(self: Self, device: str | int | torch.device) -> Self:
        """Run on another device: cpu, cuda, cuda:1, mps or 0.

        Raises:
            BackendError: the device is missing.
        """
        name, opened = str(device), self._detector
        if opened is None or opened.network is not None:
            opened = _moved(opened, name)
        else:
            opened = load_detector(self.ckpt_path, name)
        self._device, self._detector, self._adapted = name, opened, None
        return self

    def cpu(self: Self) -> Self:
        """Run on the CPU."""
        return self.to("cpu")

    def cuda(self: Self, device: int = 0) -> Self:
        """Run on a CUDA device."""
        return self.to(device)

    def half(self: Self) -> Self:
        """Compute in 16 bits in later calls, as with `half=True`; the weights stay float32."""
        self._half = True
        return self

    def float(self: Self) -> Self:
        """Undo `half`."""
        self._half = False
        return self

    def eval(self: Self) -> Self:
        """Return self: the network is in eval mode except inside `train`."""
        return self

    def fuse(self: Self) -> Self:
        """Return self: detectors already run fused, and `model` stays trainable."""
        return self

    @property
    def model(self) -> nn.Module:
        """The network in eval mode: (B, 3, H, W) in 0..1 to a ModelOutput.

        It also has `names`, `yaml` (its architecture) and `stride`, as in Ultralytics.

        Raises:
            UsageError: the model is an exported file.
        """
        import torch

        network = self._network()
        described = {
            "names": self.names,
            "yaml": model_config_to_dict(network.config),
            "stride": torch.tensor([float(stride) for stride in network.config.strides]),
        }
        vars(network).update(described)  # plain attributes: no part of its state dict
        return network

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors of the network by their official names."""
        return self._network().state_dict()

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the network."""
        return self._network().parameters()

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters of the network with their names."""
        return self._network().named_parameters()

    @property
    def names(self) -> dict[int, str]:
        """Class index to name."""
        return self._open().names

    @property
    def device(self) -> torch.device | None:
        """Device of the network; None for an exported file, whose runtime chooses it."""
        return self._open().device

    @property
    def transforms(self) -> Preprocessing:
        """How an image becomes the input: its size, and whether the resize is antialiased."""
        return self._open().preprocessing

    @property
    def ckpt(self) -> dict[str, Any] | None:
        """What the file of the weights records besides its tensors; None for other models."""
        if is_architecture(self.ckpt_path) or is_exported(self.ckpt_path):
            return None
        from rtdetr_cli.weights.checkpoint import header
        from rtdetr_cli.weights.reader import open_weights

        return header(open_weights(resolve_weights(self.ckpt_path), family=self._family))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.ckpt_path!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_adapted": None}  # made again on demand

    def _point_at(
        self, path: str, opened: Detector | None = None, family: str | None = None
    ) -> None:
        """Replace the model; a detector that is not open is opened on demand."""
        self.ckpt_path, self._family = path, family
        self.overrides["model"] = path
        self._architecture = path if is_architecture(path) else None
        self._detector, self._adapted = opened, None

    def _told(self) -> dict[str, object]:
        """The key `family` of every mode, if it was given."""
        return {"family": self._family} if self._family else {}

    def _open(self) -> Detector:
        if self._detector is None:
            self._detector = load_detector(self.ckpt_path, self._device, family=self._family)
        return self._detector

    def _outline(self) -> RTDETRNetwork | None:
        """The network for counting; that of an architecture need not be built, only outlined."""
        if self._detector is None and is_architecture(self.ckpt_path):
            import torch

            from rtdetr_cli.nn.rtdetr import RTDETRNetwork

            with torch.device("meta"):
                return RTDETRNetwork(load_model_config(self.ckpt_path), len(COCO_NAMES))
        return self._open().network

    def _network(self) -> RTDETRNetwork:
        network = self._open().network
        if network is None:
            raise UsageError(f"{self.ckpt_path} is an exported file; it has no PyTorch network")
        return network

    def _at(self, settings: PredictSettings) -> Detector:
        """The detector for the device and speed of one call; the last variant is cached."""
        speed = (settings.decoder_layers, settings.num_queries, settings.half)
        is_written = settings.backend != "torch"  # an exported file has one size
        size = settings.imgsz if is_written else None
        wanted = (settings.device, *speed, settings.backend, size, settings.timeout)
        if wanted == (self._device, None, None, False, "torch", None, None):
            return self._open()
        if self._adapted is None or self._adapted[0] != wanted:
            self._adapted = (wanted, adapt(self._open(), settings))
        return self._adapted[1]


def _moved(opened: Detector | None, device: str) -> Detector | None:
    """A PyTorch detector on another device, with the same network.

    Raises:
        BackendError: the device is missing.
    """
    from rtdetr_cli.backends.torch import TorchDetector, choose_device

    chosen = choose_device(device)
    if not isinstance(opened, TorchDetector):
        return opened
    moved = TorchDetector(opened.network, opened.names, opened.preprocessing, chosen)
    moved.calibration = opened.calibration
    return moved


def _same_size(one: ModelConfig, other: ModelConfig) -> bool:
    """Whether two architectures differ at most in details that a file of weights decides."""
    return (one.backbone, one.encoder.hidden_dim, one.decoder.num_layers) == (
        other.backbone,
        other.encoder.hidden_dim,
        other.decoder.num_layers,
    )
