"""A frozen teacher whose map the F5 of the trained network imitates (RT-DETRv4).

The projector to the teacher's channels is part of the network in training, under the name that
RT-DETRv4 gives it, and of no saved weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from rtdetr_cli.backends.onnx.external_data import check_file
from rtdetr_cli.backends.onnx.session import open_session, runtime_errors
from rtdetr_cli.backends.torch import build_network
from rtdetr_cli.config.model_path import is_exported
from rtdetr_cli.core.console import say
from rtdetr_cli.core.errors import UsageError, WeightsError
from rtdetr_cli.loss.distillation import distill_loss
from rtdetr_cli.nn.hybrid_encoder import HybridEncoder
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.reader import open_weights
from rtdetr_cli.weights.store import resolve_weights

PROJECTOR = "encoder.feature_projector."
MOST_CHANNELS = 2**14
"""Limit of a teacher's channels; 768 in DINOv3 ViT-B."""
Extractor = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) RGB in 0..1 to a map (B, C, h, w), without gradient."""


class Distiller:
    """The distillation loss of each forward pass of a network."""

    def __init__(self, extract: Extractor, channels: int, weight: float) -> None:
        self._extract, self.channels, self._weight = extract, channels, weight
        self._network: RTDETRNetwork | None = None
        self._f5: Tensor | None = None

    def watch(self, network: RTDETRNetwork) -> None:
        """Keep the F5 of every forward pass of a network that has a projector."""
        self._network = network
        aifi(network).register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        del module, inputs
        self._f5 = output

    def loss(self, images: Tensor) -> Tensor:
        """The weighted loss of the images (B, 3, H, W) that the network has had last."""
        assert self._network is not None
        assert self._f5 is not None
        f5, self._f5 = self._f5.float(), None
        with torch.autocast(images.device.type, enabled=False):
            projected: Tensor = self._network.get_submodule(PROJECTOR[:-1])(f5.movedim(1, -1))
            return self._weight * distill_loss(projected.movedim(-1, 1), self._extract(images))


def aifi(network: RTDETRNetwork) -> nn.Module:
    """The module whose output is F5.

    Raises:
        UsageError: a lite encoder has none.
    """
    if not isinstance(network.encoder, HybridEncoder):
        raise UsageError(
            f"teacher: {network.config.name} has no F5 to distil into, as its encoder has no AIFI"
        )
    return network.encoder.encoder[0]


def add_projector(network: RTDETRNetwork, channels: int) -> None:
    """Add the projector from F5 to the teacher's channels."""
    aifi(network)
    width = network.config.encoder.hidden_dim
    network.encoder.add_module("feature_projector", nn.Sequential(nn.Linear(width, channels)))


def without_projector(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the tensors of the projector."""
    return {name: value for name, value in state.items() if not name.startswith(PROJECTOR)}


def projector_channels(state: Mapping[str, object]) -> int:
    """The teacher's channels, read from the shape in an untrusted state dict.

    Raises:
        WeightsError: there is no projector in it.
    """
    weight = state.get(f"{PROJECTOR}0.weight")
    if not isinstance(weight, Tensor) or weight.ndim != 2 or len(weight) > MOST_CHANNELS:
        raise WeightsError("its network has no projector to its teacher")
    return len(weight)


def open_teacher(
    name: str, weight: float, device: torch.device, batch: int, sizes_hw: set[tuple[int, int]]
) -> Distiller:
    """Open a teacher and try it on grey images of every size of the training.

    Args:
        name: weights of any network that the toolkit opens, or an ONNX file that gives one map.
        weight: of the loss.
        device: of the training.
        batch: images of a batch in this process.
        sizes_hw: sizes of the input.

    Raises:
        UsageError: it gives no map (B, C, h, w), or accepts only other sizes.
        WeightsError: it cannot be opened.
    """
    extract = _onnx(Path(name), device) if is_exported(name) else _network(name, device)
    shapes = set()
    for height, width in sorted(sizes_hw):
        try:
            found = extract(torch.full((batch, 3, height, width), 0.5, device=device))
        except (RuntimeError, WeightsError) as error:
            raise UsageError(
                f"teacher={name} cannot take {batch} images of {height}x{width} pixels (height x "
                f"width); set batch, imgsz and multi_scale=false to what it accepts: {error}"
            ) from error
        if found.ndim != 4 or len(found) != batch or not 1 <= found.shape[1] <= MOST_CHANNELS:
            raise UsageError(
                f"teacher={name} must give one map (batch, channels, height, width), found the "
                f"shape {tuple(found.shape)} for {batch} images"
            )
        shapes.add(found.shape[1])
    channels = shapes.pop()
    say(f"teacher {name}: F5 imitates its map of {channels} channels, weight {weight:g}")
    return Distiller(extract, channels, weight)


def _network(name: str, device: torch.device) -> Extractor:
    """The F5 of another network."""
    checkpoint = open_weights(resolve_weights(name))
    network = build_network(checkpoint.config, len(checkpoint.names), checkpoint.weights)
    network.eval().requires_grad_(False).to(device)
    attention = aifi(network)
    project = network.encoder.input_proj[-1]

    @torch.no_grad()
    def extract(images: Tensor) -> Tensor:
        f5: Tensor = attention(project(network.backbone(images)[-1]))
        return f5

    return extract


def _onnx(path: Path, device: torch.device) -> Extractor:
    """The first output of an ONNX file, which normalises the images itself."""
    if path.suffix.lower() != ".onnx":
        raise UsageError(f"teacher={path} must be weights of a network or an .onnx file")
    check_file(path)
    session, _ = open_session(path, str(device))
    image, feature = session.get_inputs()[0].name, session.get_outputs()[0].name

    def extract(images: Tensor) -> Tensor:
        with runtime_errors(WeightsError, path.name):
            (found,) = session.run([feature], {image: images.cpu().numpy()})
        return torch.from_numpy(found).float().to(device)

    return extract
