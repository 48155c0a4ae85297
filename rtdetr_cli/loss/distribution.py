"""The losses of boxes as distributions (D-FINE, arXiv 2410.13842): FGL and DDF.

Fine-grained localisation (FGL) is the cross entropy of each edge of a matched query with the two
bins around its distance. Decoupled distillation focal loss (DDF) is the divergence of the
distributions of all queries from those of the last layer.

Legend: L decoder layers, B batch, Q queries, K classes, R + 1 bins, U matched pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from rtdetr_cli.core.distribution import bin_values, distances_from_boxes
from rtdetr_cli.core.structures import Distributions, Prediction
from rtdetr_cli.loss.matcher import FlatTargets, Matches
from rtdetr_cli.loss.terms import box_overlap

EDGES = 4


class QueryWeights(NamedTuple):
    """Weight in DDF of each matched query and of each other one, scalars."""

    matched: Tensor
    others: Tensor


class EdgeTargets(NamedTuple):
    """Where the distance of an edge is among the bins.

    Attributes:
        left: (..., 4) int64 in 0..R-1, the bin below.
        right_share: (..., 4) in 0..1, the share of the bin above, `left` + 1.
    """

    left: Tensor
    right_share: Tensor


def edge_targets(distances: Tensor, bins: Tensor) -> EdgeTargets:
    """Split distances between the two bins around them; beyond an end, all to that end.

    Args:
        distances: (..., 4).
        bins: (R + 1,) in ascending order.
    """
    left = (torch.searchsorted(bins, distances, right=True) - 1).clamp(0, len(bins) - 2)
    low, high = bins[left], bins[left + 1]
    return EdgeTargets(left, ((distances - low) / (high - low)).clamp(0, 1))


def query_weights(counts: Tensor, own_counts: Tensor) -> QueryWeights:
    """The weights that make DDF a mean over the matched queries and one over the others.

    The two means enter by the square root of their numbers. Theirs is scaled by 8 / batch size,
    which cancels out.

    Args:
        counts: (2,) matched and other queries of the decoder, mean over processes.
        own_counts: (2,) the same of the queries that the weights are for, denoising or not.
    """
    share = counts.sqrt() / counts.sqrt().sum()
    return QueryWeights(*(share / own_counts.where(own_counts > 0, 1.0) / EDGES))


def distribution_losses(
    layers: list[Prediction],
    distributions: Distributions,
    truth: FlatTargets,
    matches: Matches,
    weights: QueryWeights,
) -> tuple[Tensor, Tensor]:
    """FGL and DDF of all layers.

    Args:
        layers: logits (B, Q, K) and boxes (B, Q, 4) of the L layers.
        distributions: of the same layers and queries.
        truth: ground truth of the batch.
        matches: (1, U) pairs, the same in all layers.
        weights: of the queries in DDF.

    Returns:
        (L,) sums of FGL over the pairs, and (L - 1,) means of DDF, for all layers but the last.
    """
    dtype, targets, queries = truth.boxes_cxcywh.dtype, matches.targets[0], matches.queries[0]
    images, target_boxes = truth.images[targets], truth.boxes_cxcywh[targets]
    corners = torch.stack(distributions.corners).to(dtype)  # (L, B, Q, 4, R + 1)
    references = distributions.references[images, queries].to(dtype)  # (U, 4)
    bins = bin_values(corners.shape[-1] - 1, distributions.scale, like=corners)
    distances = distances_from_boxes(references, target_boxes, distributions.scale)
    boxes = torch.stack([layer.boxes for layer in layers])[:, images, queries].to(dtype)
    iou = box_overlap(boxes.detach(), target_boxes)[0]  # (L, U)
    fgl = fgl_loss(corners[:, images, queries], edge_targets(distances, bins), iou)

    score = layers[-1].logits.detach().to(dtype).sigmoid().amax(-1)  # (B, Q)
    weight = (weights.others * score).repeat(len(corners) - 1, 1, 1)
    weight[:, images, queries] = weights.matched * iou[:-1]
    return fgl, ddf_loss(corners[:-1], corners[-1].detach(), weight)


def fgl_loss(corners: Tensor, targets: EdgeTargets, iou: Tensor) -> Tensor:
    """Cross entropy with the two bins of each edge, weighted by the IoU: (L,) sums.

    Args:
        corners: (L, U, 4, R + 1) logits.
        targets: (U, 4).
        iou: (L, U) of the predicted and the matched box.
    """
    left = targets.left.expand(len(corners), -1, -1)[..., None]
    log_p = corners.log_softmax(-1).gather(-1, torch.cat((left, left + 1), -1))  # (L, U, 4, 2)
    share = targets.right_share
    entropy = -(log_p[..., 0] * (1 - share) + log_p[..., 1] * share)  # (L, U, 4)
    return (entropy.sum(-1) * iou).sum(-1)


def ddf_loss(corners: Tensor, teacher: Tensor, weight: Tensor, temperature: float = 5.0) -> Tensor:
    """Divergence from the teacher's distributions, weighted by query: (L,) sums.

    Args:
        corners: (L, B, Q, 4, R + 1) logits.
        teacher: (B, Q, 4, R + 1) logits.
        weight: (L, B, Q).
        temperature: divides the logits; its square multiplies the divergence.
    """
    target = (teacher / temperature).log_softmax(-1)
    log_p = (corners / temperature).log_softmax(-1)
    divergence = F.kl_div(log_p, target.expand_as(log_p), reduction="none", log_target=True)
    return temperature**2 * (divergence.sum((-2, -1)) * weight).sum((1, 2))
