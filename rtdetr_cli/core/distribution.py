"""Boxes as distributions over the distances of their edges (D-FINE, arXiv 2410.13842, section 4.1).

Each edge of a box is at a distance from a reference box, the expected value of a distribution over
R + 1 bins. The decoder turns distributions into boxes, the loss turns boxes into distributions.

Edges are in the order left, top, right, bottom; boxes are cxcywh in fractions of the image.
Distances are in units of the reference box's size divided by `scale`.
"""

from __future__ import annotations

import torch
from torch import Tensor

_UP = 0.5
"""Largest distance of the inner bins, half the size of the reference box."""
_TINY = 1e-16
"""Lower bound of the size of a reference box."""


def bin_values(reg_max: int, scale: float, like: Tensor) -> Tensor:
    """Distance of each bin: the weighting function W(n), with the smallest steps around zero.

    Args:
        reg_max: R, even.
        scale: curvature of the function, `reg_scale`; 4, and 8 in D-FINE-X.
        like: gives dtype and device.

    Returns:
        (R + 1,) from -2 * 0.5 * scale to as much, 0 in the middle.
    """
    bound = _UP * scale
    half = reg_max // 2
    step = (bound + 1) ** (1 / (half - 1))
    # Made on the device, so that a GPU need not wait for a copy.
    inner = step ** torch.arange(1, half, dtype=like.dtype, device=like.device) - 1
    ends = inner.new_full((1,), 2 * bound)
    return torch.cat((-ends, -inner.flip(0), inner.new_zeros(1), inner, ends))


def boxes_from_distances(reference: Tensor, distances: Tensor, scale: float) -> Tensor:
    """Boxes whose edges are at distances from those of reference boxes.

    Args:
        reference: (..., 4) boxes.
        distances: (..., 4), positive outwards.
        scale: `reg_scale`.

    Returns:
        (..., 4) boxes, which may leave 0..1.
    """
    centre, size = reference.split(2, dim=-1)
    low, high = distances.split(2, dim=-1)
    # the edges are at centre -+ (0.5 * scale + distance) * size / scale
    centre = centre + (high - low) * (size / (2 * scale))
    return torch.cat((centre, size + (low + high) * (size / scale)), dim=-1)


def distances_from_boxes(reference: Tensor, boxes: Tensor, scale: float) -> Tensor:
    """Distances of the edges of boxes from those of reference boxes, the inverse of the above.

    Args:
        reference: (..., 4) boxes.
        boxes: (..., 4) boxes.
        scale: `reg_scale`.

    Returns:
        (..., 4) distances.
    """
    centre, unit = reference[..., :2], reference[..., 2:] / scale + _TINY
    low = boxes[..., :2] - boxes[..., 2:] / 2
    high = boxes[..., :2] + boxes[..., 2:] / 2
    distances = torch.cat(((centre - low) / unit, (high - centre) / unit), dim=-1)
    return distances - _UP * scale
