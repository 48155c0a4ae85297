"""Contrastive denoising queries (DINO section 3.3, as RT-DETR uses it): training only.

Legend: B batch, T boxes of the fullest image, G groups, D = 2 * G * T denoising queries,
Q queries, C hidden_dim, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rtdetr_cli.core.box_ops import cxcywh_to_xyxy, xyxy_to_cxcywh
from rtdetr_cli.core.structures import DenoisingGroups, Target


@dataclass(frozen=True)
class DenoisingConfig:
    """How ground truth is disturbed; the defaults are the official ones."""

    num_denoising: int = 100
    """Budget of positive queries per image; 0 turns denoising off."""
    label_noise: float = 0.5
    """Half of this share of the labels is replaced by a random class."""
    box_noise: float = 1.0
    """Positives move by up to this many half sizes, negatives by one to two of them."""


class DenoisingQueries(NamedTuple):
    """Disturbed ground truth as queries."""

    content: Tensor
    """(B, D, C) embedded labels."""
    boxes_logit: Tensor
    """(B, D, 4) disturbed boxes, cxcywh before the sigmoid."""
    groups: DenoisingGroups


def make_denoising_queries(
    targets: list[Target], label_embedding: nn.Embedding, config: DenoisingConfig
) -> DenoisingQueries:
    """Disturb the ground truth into groups of positive and negative queries.

    Args:
        targets: ground truth of each image, on the network's device.
        label_embedding: K + 1 rows, the last for padding.
        config: strength of the noise and number of queries.

    Returns:
        The queries. Of an image with more boxes than the budget, a random subset is used, so that
        dense images do not exhaust the memory. Without boxes D = 0, and the label embedding gets a
        zero gradient: in distributed training every process must contribute one.
    """
    budget = config.num_denoising
    most = min(max(len(target.labels) for target in targets), budget)
    num_groups = max(budget // max(most, 1), 1)
    labels, boxes, chosen = _pad_targets(targets, most, padding=label_embedding.num_embeddings - 1)
    # Every group holds a positive copy of all boxes, then a negative one.
    labels = labels.repeat(1, 2 * num_groups)  # (B, D)
    boxes = boxes.repeat(1, 2 * num_groups, 1)  # (B, D, 4)
    is_negative = torch.arange(labels.shape[1], device=labels.device) // max(most, 1) % 2 == 1
    boxes = _disturb_boxes(boxes, is_negative, config.box_noise)
    content = label_embedding(_disturb_labels(labels, label_embedding, config.label_noise))
    groups = _group_indices(chosen, most, num_groups)
    return DenoisingQueries(content, torch.logit(boxes.float(), eps=1e-5).to(boxes), groups)


def _pad_targets(
    targets: list[Target], most: int, padding: int
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """(B, T) labels, (B, T, 4) boxes, and for each image the indices of the boxes used."""
    first = targets[0]
    labels = first.labels.new_full((len(targets), most), padding)
    boxes = first.boxes_cxcywh.new_zeros((len(targets), most, 4))
    chosen = []
    for row, target in enumerate(targets):
        count = len(target.labels)
        device = target.labels.device
        draw = torch.randperm if 0 < most < count else torch.arange
        pick = draw(count, device=device)[:most]
        labels[row, : len(pick)] = target.labels[pick]
        boxes[row, : len(pick)] = target.boxes_cxcywh[pick]
        chosen.append(pick)
    return labels, boxes, chosen


def _disturb_labels(labels: Tensor, embedding: nn.Embedding, label_noise: float) -> Tensor:
    """Replace some labels by random ones; padding stays padding."""
    padding = embedding.num_embeddings - 1
    flip = torch.rand(labels.shape, device=labels.device) < label_noise * 0.5
    random_labels = torch.randint_like(labels, 0, padding)
    return torch.where(flip & (labels != padding), random_labels, labels)


def _disturb_boxes(boxes_cxcywh: Tensor, is_negative: Tensor, box_noise: float) -> Tensor:
    """Move both corners: positives by 0..1, negatives by 1..2 half sizes (DINO section 3.3)."""
    half_sizes = (boxes_cxcywh[..., 2:] / 2).repeat(1, 1, 2) * box_noise
    sign = torch.randint_like(boxes_cxcywh, 0, 2) * 2 - 1
    amount = torch.rand_like(boxes_cxcywh) + is_negative[:, None]
    corners = cxcywh_to_xyxy(boxes_cxcywh) + sign * amount * half_sizes
    return xyxy_to_cxcywh(corners.clamp(0.0, 1.0))


def _group_indices(chosen: list[Tensor], most: int, num_groups: int) -> DenoisingGroups:
    """Positive queries are matched by construction: query g * 2T + t restores box t."""
    positives, restored = [], []
    for pick in chosen:
        starts = torch.arange(num_groups, device=pick.device) * 2 * most
        place = torch.arange(len(pick), device=pick.device)
        positives.append((starts[:, None] + place).flatten())
        restored.append(pick.repeat(num_groups))
    return DenoisingGroups(positives, restored, num_groups, 2 * most * num_groups)


def attention_between(
    groups: DenoisingGroups, num_queries: int, device: torch.device
) -> Tensor | None:
    """Attention mask: (D + Q, D + Q) bool, True where the row may attend to the column.

    Groups do not see each other, and the real queries do not see the ground truth in them. None,
    which allows all, if there are no denoising queries.
    """
    if not groups.num_queries:
        return None
    group_size = groups.num_queries // groups.num_groups
    group = torch.arange(groups.num_queries + num_queries, device=device) // group_size
    is_denoising = torch.arange(len(group), device=device) < groups.num_queries
    same_group = group[:, None] == group[None, :]
    return ~is_denoising[None, :] | (is_denoising[:, None] & same_group)
