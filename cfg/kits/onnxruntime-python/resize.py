"""Stretch images as in training, pixel for pixel; needs numpy and pillow."""

import numpy as np
from PIL import Image


def resize(image: Image.Image, width: int, height: int, antialias: bool) -> np.ndarray:
    """Stretch an RGB image.

    Args:
        image: RGB.
        width: that it gets.
        height: that it gets.
        antialias: what the model saw in training: Pillow's bilinear filter, or OpenCV's.

    Returns:
        (height, width, 3) uint8.
    """
    if antialias:
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    pixels = np.asarray(image).astype(np.int32)
    left, right, weight = _taps(pixels.shape[1], width)
    weight = weight[:, :, None]
    rows = pixels[:, left] * weight[0] + pixels[:, right] * weight[1]
    above, below, weight = _taps(pixels.shape[0], height)
    weight = weight[:, :, None, None]
    top = (rows[above] >> 4) * weight[0] >> 16
    bottom = (rows[below] >> 4) * weight[1] >> 16
    return ((top + bottom + 2) >> 2).astype(np.uint8)


def _taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two neighbours of each pixel on one side, and their weights (2, target) in 1/2048.

    cv2.resize with INTER_LINEAR computes in such integers.
    """
    at = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32)
    first = np.floor(at).astype(np.int64)
    share = at - first.astype(np.float32)
    weight = np.rint(np.stack([1 - share, share]) * np.float32(2048)).astype(np.int32)
    return first.clip(0, source - 1), (first + 1).clip(0, source - 1), weight
