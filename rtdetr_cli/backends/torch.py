"""The PyTorch detector: a network with its class names and its preprocessing."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from functools import partial

import torch
from torch import Tensor

from rtdetr_cli.backends.autocast import DTYPE_NAMES, half_dtype, keep_exact
from rtdetr_cli.config.model import ModelConfig, Preprocessing
from rtdetr_cli.core.detections import ALL_PAIRS, Detections, Images, Selection
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.core.structures import ModelOutput
from rtdetr_cli.nn.postprocess import top_detections
from rtdetr_cli.nn.rtdetr import RTDETRNetwork, fuse
from rtdetr_cli.nn.unfilled import Unfilled
from rtdetr_cli.weights.architecture import shipped_configs
from rtdetr_cli.weights.calibration import Calibration
from rtdetr_cli.weights.checkpoint import Checkpoint, check_fit


class TorchDetector:
    """A detector that runs in PyTorch.

    Attributes:
        network: the trainable network in eval mode, on `device`.
        device: where the network is.
        names: class index to name.
        preprocessing: how images become its input.
        description: architecture, runtime and device, for messages.
        size_is_free: True.
        licence: of the weights, as in a checkpoint.
        calibration: likewise.
    """

    size_is_free = True
    licence = ""
    calibration: Calibration | None = None

    def __init__(
        self,
        network: RTDETRNetwork,
        names: dict[int, str],
        preprocessing: Preprocessing,
        device: torch.device,
        fused: bool = True,
        half: bool = False,
    ) -> None:
        self._dtype = half_dtype(device) if half else None
        self.network = network.eval().to(device)
        self.names = names
        self.preprocessing = preprocessing
        self.device = device
        self.description = f"{network.config.name}, PyTorch {torch.__version__}, {device}"
        runner = fuse(self.network) if fused else self.network
        if half:
            self.description += f", {DTYPE_NAMES[self._dtype]}"
            keep_exact(runner)
        # On CPUs channels_last makes the convolutions of L 1.15 times faster (docs/benchmarks.md).
        self._runner = runner.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def detect(
        self,
        images: Images,
        sizes_hw: list[tuple[int, int]],
        max_det: int = 300,
        selection: Selection = ALL_PAIRS,
    ) -> list[Detections]:
        """Find objects.

        Args:
            images: (B, 3, H, W) float RGB in 0..1, H and W multiples of 32.
            sizes_hw: (height, width) in pixels of each original image.
            max_det: most detections per image.
            selection: the pairs of query and class to select from.

        Returns:
            One Detections per image.
        """
        return top_detections(self.forward(images), sizes_hw, max_det, selection)

    @torch.inference_mode()
    def forward(self, images: Images) -> ModelOutput:
        """Logits and boxes of all queries for (B, 3, H, W) float RGB in 0..1."""
        with self._precision():
            output: ModelOutput = self._runner(self._to_input(images))
        return output

    def set_speed(self, decoder_layers: int | None = None, num_queries: int | None = None) -> None:
        """Run fewer decoder layers or queries from the next call on; None leaves them.

        Raises:
            UsageError: the network has fewer layers.
        """
        for network in (self.network, self._runner):
            network.set_speed(decoder_layers, num_queries)

    @torch.inference_mode()
    def detect_at_every_speed(
        self,
        images: Tensor,
        sizes_hw: list[tuple[int, int]],
        num_queries: Iterable[int],
        max_det: int = 300,
    ) -> dict[tuple[int, int], list[Detections]]:
        """What `detect` returns with each number of decoder layers in use and of queries.

        Backbone and encoder run once, the decoder once per number of queries.

        Args:
            images: as in `detect`.
            sizes_hw: likewise.
            num_queries: numbers of queries; the last one stays in use.
            max_det: most detections per image.

        Returns:
            Detections per image by (decoder layers, queries).
        """
        found, decoder = {}, self._runner.decoder
        with self._precision():
            maps = self._runner.encoder(self._runner.backbone(self._to_input(images)))
            memory = decoder.project(maps)
            for queries in num_queries:
                self.set_speed(num_queries=queries)
                for depth, output in enumerate(decoder.at_every_depth(*memory), start=1):
                    ranked = top_detections(ModelOutput(*output), sizes_hw, max_det)
                    found[depth, queries] = ranked
        return found

    def release_network(self) -> None:
        """Free the weights that are fused: `network` is the one that runs, for inference only."""
        self.network = self._runner

    def adapted(
        self,
        device: str | None,
        decoder_layers: int | None = None,
        num_queries: int | None = None,
        half: bool = False,
    ) -> TorchDetector:
        """A copy on another device, at another speed or precision; `device` None keeps its own.

        Raises:
            UsageError: the network has fewer layers.
            BackendError: the device or its 16-bit type is missing.
        """
        network = copy.deepcopy(self.network)
        network.set_speed(decoder_layers, num_queries)
        place = choose_device(device) if device else self.device
        other = TorchDetector(network, self.names, self.preprocessing, place, half=half)
        other.calibration = self.calibration
        return other

    def _to_input(self, images: Images) -> Tensor:
        return torch.as_tensor(images).to(self.device).contiguous(memory_format=torch.channels_last)

    def _precision(self) -> torch.autocast:
        """Autocast to 16 bits, if chosen."""
        return torch.autocast(self.device.type, self._dtype, enabled=self._dtype is not None)


def build_network(
    config: ModelConfig,
    num_classes: int,
    weights: dict[str, Tensor] | None = None,
    share: bool = False,
) -> RTDETRNetwork:
    """Build a network; load `weights`, if given, strictly.

    With `share` float32 weights become its parameters without a copy, for callers that do not use
    them otherwise.

    Raises:
        WeightsError: a tensor is missing, unexpected or of another shape.
    """
    if weights is None:
        return RTDETRNetwork(config, num_classes)
    with Unfilled():
        network = RTDETRNetwork(config, num_classes)
    origin = f"a checkpoint for {config.name}"
    check_fit(weights, network.state_dict(), origin, partial(shipped_states, num_classes))
    is_float32 = {one.dtype for one in weights.values()} <= {torch.float32, torch.int64}
    network.load_state_dict(weights, assign=share and is_float32)
    return network


def check_network(checkpoint: Checkpoint, origin: str) -> None:
    """Check that the weights are those of their network, which is not filled.

    Raises:
        WeightsError: a tensor is missing, unexpected or of another shape.
    """
    num_classes = len(checkpoint.names)
    with torch.device("meta"):
        network = RTDETRNetwork(checkpoint.config, num_classes)
    shipped = partial(shipped_states, num_classes)
    check_fit(checkpoint.weights, network.state_dict(), origin, shipped)


def shipped_states(num_classes: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Name and state dict of every shipped architecture, on the meta device."""
    for config in shipped_configs():
        with torch.device("meta"):
            yield config.name, RTDETRNetwork(config, num_classes).state_dict()


def torch_detector(
    checkpoint: Checkpoint,
    device: str | None = None,
    decoder_layers: int | None = None,
    num_queries: int | None = None,
    half: bool = False,
) -> TorchDetector:
    """Build the detector of a checkpoint."""
    num_classes = len(checkpoint.names)
    network = build_network(checkpoint.config, num_classes, checkpoint.weights, share=True)
    network.set_speed(decoder_layers, num_queries)
    names, preprocessing = checkpoint.names, checkpoint.preprocessing
    detector = TorchDetector(network, names, preprocessing, choose_device(device), half=half)
    detector.licence, detector.calibration = checkpoint.licence, checkpoint.calibration
    return detector


def choose_device(device: str | None) -> torch.device:
    """Parse `cpu`, `mps`, `cuda`, `0` or `cuda:1`; None selects the best available device.

    Raises:
        BackendError: the device is not available.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    name = f"cuda:{device}" if device.isdigit() else device
    try:
        chosen = torch.device(name)
    except RuntimeError as error:
        raise BackendError(f"device={device} is not a device; try cpu, mps, cuda or 0") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise BackendError(f"device={device} is not available: PyTorch sees {count} CUDA devices")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise BackendError("device=mps is not available: this machine has no Apple GPU")
    return chosen
