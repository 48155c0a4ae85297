"""The terms of the loss, a sum per prediction set.

Varifocal or matchability-aware for classes, L1 and GIoU for boxes.

Legend: S prediction sets (decoder layers and the encoder), B batch, Q queries, K classes,
M matched pairs in each set.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_SMALLEST_AREA = 1e-12
"""Lower bound of divisors; boxes with an area stay exact. The 1e-7 that torchvision adds to an area
is 4 % of a box of one pixel in 640."""


def box_overlap(boxes_cxcywh: Tensor, target_boxes_cxcywh: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (arXiv 1902.09630) of boxes whose shapes broadcast.

    Two boxes without area overlap by 0, wherever they are.

    Args:
        boxes_cxcywh: (..., 4) in fractions of the image.
        target_boxes_cxcywh: (..., 4) in fractions of the image.

    Returns:
        IoU (...) in 0..1 and GIoU (...) in -1..1.
    """
    low, high = _corners(boxes_cxcywh)  # (..., 2) each
    target_low, target_high = _corners(target_boxes_cxcywh)
    overlap = torch.minimum(high, target_high) - torch.maximum(low, target_low)
    intersection = _area(overlap.clamp(min=0))
    union = _area(high - low) + _area(target_high - target_low) - intersection
    hull = _area(torch.maximum(high, target_high) - torch.minimum(low, target_low))
    iou = intersection / union.clamp(min=_SMALLEST_AREA)
    return iou, iou - (hull - union) / hull.clamp(min=_SMALLEST_AREA)


def _corners(boxes_cxcywh: Tensor) -> tuple[Tensor, Tensor]:
    # Not joined as box_ops does: that would undo the matcher's layout, one plane per coordinate.
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return centre - half, centre + half


def _area(sizes: Tensor) -> Tensor:
    return sizes[..., 0] * sizes[..., 1]


def vfl_loss(
    logits: Tensor, positives: tuple[Tensor, ...], iou: Tensor, alpha: float, gamma: float
) -> Tensor:
    """Varifocal loss (arXiv 2008.13367); the target score of a matched query is its IoU.

    Args:
        logits: (S, B, Q, K) before the sigmoid.
        positives: index into logits of each matched query's class, four tensors that give (S, M).
        iou: (S, M) in 0..1, of the predicted and the matched box.
        alpha: weight of the negatives.
        gamma: focus on confident negatives.

    Returns:
        (S,) sum over images, queries and classes.
    """
    with torch.no_grad():
        weight = alpha * logits.sigmoid().pow(gamma)
        weight[positives] = iou
    return _weighted_entropy(logits, positives, iou, weight)


def mal_loss(logits: Tensor, positives: tuple[Tensor, ...], iou: Tensor, gamma: float) -> Tensor:
    """Matchability-aware loss (DEIM, arXiv 2412.04234).

    A positive has weight 1 whatever its IoU, whereas the varifocal loss almost ignores bad matches;
    its target score is IoU^gamma. A negative has weight score^gamma.

    Args:
        logits: (S, B, Q, K) before the sigmoid.
        positives: index into logits of each matched query's class, four tensors that give (S, M).
        iou: (S, M) in 0..1, of the predicted and the matched box.
        gamma: focus on good matches and on confident negatives.

    Returns:
        (S,) sum over images, queries and classes.
    """
    with torch.no_grad():
        weight = logits.sigmoid().pow(gamma)
        weight[positives] = 1.0
    return _weighted_entropy(logits, positives, iou.pow(gamma), weight)


def _weighted_entropy(
    logits: Tensor, positives: tuple[Tensor, ...], quality: Tensor, weight: Tensor
) -> Tensor:
    """Cross entropy to the quality (S, M) of the positives and to 0 elsewhere, (S,) sums."""
    score = torch.zeros_like(logits)
    score[positives] = quality.detach()
    loss = F.binary_cross_entropy_with_logits(logits, score, weight, reduction="none")
    return loss.sum((1, 2, 3))


def l1_loss(boxes_cxcywh: Tensor, target_boxes_cxcywh: Tensor) -> Tensor:
    """L1 distance of matched boxes: (S, M, 4) and (S, M, 4) to (S,)."""
    return (boxes_cxcywh - target_boxes_cxcywh).abs().sum((1, 2))


def giou_loss(giou: Tensor) -> Tensor:
    """1 - GIoU of matched boxes: (S, M) in -1..1 to (S,)."""
    return (1 - giou).sum(1)
