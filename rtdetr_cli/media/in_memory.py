"""Convert images in memory to RGB pixels: Pillow images, arrays, tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.image import Pixels, to_rgb

if TYPE_CHECKING:
    from torch import Tensor

InMemory: TypeAlias = "Image.Image | NDArray[Any] | Tensor"


def to_pixels(image: InMemory, name: str) -> Pixels:
    """Convert to (H, W, 3) uint8 RGB, upright.

    Args:
        image: a Pillow image; an array (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA, uint8;
            a tensor (3, H, W) RGB, float in 0..1 or uint8.
        name: of the image, for messages.

    Raises:
        DataError: another shape or type, or values out of range.
    """
    if isinstance(image, Image.Image):
        return _from_pillow(image, name)
    if isinstance(image, np.ndarray):
        return _from_array(image, name)
    return _from_tensor(image, name)


def _from_pillow(image: Image.Image, name: str) -> Pixels:
    if not all(image.size):
        raise DataError(f"{name}: a Pillow image of {image.width}x{image.height} pixels")
    try:
        return to_rgb(image)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise DataError(f"{name}: the Pillow image cannot be read ({error})") from error


def _from_array(array: NDArray[Any], name: str) -> Pixels:
    """(H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA, uint8, to (H, W, 3) RGB."""
    if array.dtype != np.uint8:
        raise DataError(f"{name}: an array of {array.dtype}; expected uint8 in 0..255")
    channels = array[..., None] if array.ndim == 2 else array
    if channels.ndim != 3 or channels.shape[2] not in {1, 3, 4} or channels.size == 0:
        raise DataError(f"{name}: an array of shape {array.shape}; expected (H, W, 3) BGR")
    rgb = channels[..., [0, 0, 0] if channels.shape[2] == 1 else [2, 1, 0]]
    return np.ascontiguousarray(rgb)


def _from_tensor(tensor: Tensor, name: str) -> Pixels:
    """(3, H, W) RGB, float in 0..1 or uint8, to (H, W, 3) uint8."""
    if tensor.ndim != 3 or tensor.shape[0] != 3 or tensor.numel() == 0:
        raise DataError(f"{name}: a tensor of shape {tuple(tensor.shape)}; expected (B, 3, H, W)")
    import torch

    if tensor.is_meta or tensor.layout != torch.strided:
        raise DataError(f"{name}: a tensor without values, or sparse; expected a dense one")
    pixels = tensor.detach().cpu()
    if pixels.is_floating_point():
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # also catches NaN
            raise DataError(f"{name}: a float tensor must hold RGB in 0..1, or be uint8 in 0..255")
        pixels = (pixels.float() * 255).round().to(torch.uint8)
    if pixels.dtype != torch.uint8:
        raise DataError(f"{name}: a tensor of {pixels.dtype}; expected float in 0..1 or uint8")
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
