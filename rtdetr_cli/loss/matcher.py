"""Assign queries to ground-truth boxes: optimal one-to-one matching, as in DETR.

`HungarianMatcher` is that of RT-DETR; `IoUMatcher` has the costs of DEIMv2's last epochs.

Legend: S prediction sets (decoder layers and the encoder), B batch, Q queries, K classes,
T ground-truth boxes of the whole batch, M matched pairs in each set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from rtdetr_cli.core.structures import Prediction, Target
from rtdetr_cli.loss.terms import box_overlap

_COST_LIMIT = 1e6
"""Costs are clipped to plus or minus this. A non-finite cost, of an invalid logit or box, counts as
the highest cost, so its query is matched last."""


class FlatTargets(NamedTuple):
    """The ground truth of a batch, concatenated image by image.

    Attributes:
        boxes_cxcywh: (T, 4) in fractions of the image.
        labels: (T,) int64.
        images: (T,) int64, index of each box's image in the batch.
        counts: number of boxes of each image.
    """

    boxes_cxcywh: Tensor
    labels: Tensor
    images: Tensor
    counts: list[int]


class Matches(NamedTuple):
    """Matched pairs of every prediction set; the image is that of the target.

    Attributes:
        queries: (S, M) int64 in 0..Q-1.
        targets: (S, M) int64 in 0..T-1, index into FlatTargets.
    """

    queries: Tensor
    targets: Tensor


def flatten_targets(targets: list[Target], like: Tensor) -> FlatTargets:
    """Join the targets of a batch, boxes in the dtype of `like`, all on its device."""
    counts = [len(target.labels) for target in targets]
    images = np.repeat(np.arange(len(counts)), counts)
    return FlatTargets(
        torch.cat([target.boxes_cxcywh for target in targets]).to(like),
        torch.cat([target.labels for target in targets]).to(like.device),
        torch.from_numpy(images).to(like.device),
        counts,
    )


@dataclass(frozen=True)
class HungarianMatcher:
    """Assign a query to each ground-truth box at minimal total cost, each query at most once."""

    cost_class: float = 2.0
    """Weight of the focal class cost."""
    cost_bbox: float = 5.0
    """Weight of the L1 distance of the boxes."""
    cost_giou: float = 2.0
    """Weight of the negative generalised IoU."""
    alpha: float = 0.25
    """Focal weight of the positive part, 0..1."""
    gamma: float = 2.0
    """Focal exponent."""

    def __call__(self, prediction: Prediction, targets: FlatTargets) -> Matches:
        """Match each prediction set on its own.

        Args:
            prediction: logits (S, B, Q, K), boxes (S, B, Q, 4) cxcywh in 0..1, at least float32.
            targets: the ground truth of the B images.
        """
        return _on_device(self._pairs(prediction, targets), targets)

    def with_union(self, prediction: Prediction, targets: FlatTargets) -> tuple[Matches, Matches]:
        """The matches of each set, and their union (D-FINE): one set, each query at most once.

        A query that several sets match to different boxes keeps the box of most of them, and of
        equal ones the first.

        Args:
            prediction: as above.
            targets: the ground truth of the B images.

        Returns:
            Matches (S, M), and (1, U) with M <= U <= S * M.
        """
        pairs = self._pairs(prediction, targets)
        union = _union(pairs, targets.counts, num_queries=prediction.boxes.shape[2])
        return _on_device(pairs, targets), _on_device(union, targets)

    def _pairs(self, prediction: Prediction, targets: FlatTargets) -> NDArray[np.int64]:
        cost = self.costs(prediction, targets).cpu().numpy()  # the step's only copy to the host
        return _assign(cost, targets.counts)

    @torch.no_grad()
    def costs(self, prediction: Prediction, targets: FlatTargets) -> Tensor:
        """(T, S, Q) cost of each box with the queries of its own image, in every set.

        Bounded whatever the network outputs: divergence must show in the loss, where all processes
        see it; SciPy would raise in this process only.
        """
        logits = prediction.logits.permute(1, 3, 0, 2)[targets.images, targets.labels]  # (T, S, Q)
        planes = prediction.boxes.permute(3, 1, 0, 2).contiguous()  # (4, B, S, Q), 4 times faster
        boxes = planes[:, targets.images].movedim(0, -1)  # (T, S, Q, 4)
        cost = self._cost(logits, boxes, targets.boxes_cxcywh[:, None, None])
        return cost.where(cost.isfinite(), _COST_LIMIT).clamp(-_COST_LIMIT, _COST_LIMIT)

    def _cost(self, logits: Tensor, boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """(T, S, Q) cost from (T, S, Q) logits, (T, S, Q, 4) boxes and (T, 1, 1, 4) targets."""
        l1 = (boxes - target_boxes).abs().sum(-1)
        _, giou = box_overlap(boxes, target_boxes)
        focal = self._focal(logits)
        return self.cost_class * focal + self.cost_bbox * l1 - self.cost_giou * giou

    def _focal(self, logits: Tensor) -> Tensor:
        """Focal loss as a positive minus that as a negative; log-sigmoid keeps both finite."""
        probability = logits.sigmoid()
        yes = -self.alpha * (1 - probability).pow(self.gamma) * F.logsigmoid(logits)
        no = -(1 - self.alpha) * probability.pow(self.gamma) * F.logsigmoid(-logits)
        return yes - no


@dataclass(frozen=True)
class IoUMatcher(HungarianMatcher):
    """The cost is minus the class score times a power of the IoU (DEIMv2, arXiv 2509.20787)."""

    iou_power: float = 4.0
    """Exponent of the IoU."""

    def _cost(self, logits: Tensor, boxes: Tensor, target_boxes: Tensor) -> Tensor:
        iou, _ = box_overlap(boxes, target_boxes)
        return -logits.sigmoid() * iou.pow(self.iou_power)


def _on_device(pairs: NDArray[np.int64], targets: FlatTargets) -> Matches:
    """(2, S, M) indices of boxes and queries to matches on the device of the targets."""
    target_indices, queries = torch.from_numpy(pairs).to(targets.images.device, non_blocking=True)
    return Matches(queries, target_indices)


def _assign(cost: NDArray[np.floating], counts: list[int]) -> NDArray[np.int64]:
    """(T, S, Q) cost to (2, S, M) indices of boxes and queries, image by image in every set."""
    ends = np.cumsum(counts, dtype=np.int64)
    pairs = []
    for cost_of_set in cost.swapaxes(0, 1):
        pairs_of_images = []
        for start, end in zip(ends - counts, ends, strict=True):
            rows, columns = linear_sum_assignment(cost_of_set[start:end])
            pairs_of_images.append(np.stack((start + rows, columns)))
        pairs.append(np.concatenate(pairs_of_images, axis=1))
    return np.stack(pairs, axis=1)


def _union(pairs: NDArray[np.int64], counts: list[int], num_queries: int) -> NDArray[np.int64]:
    """(2, S, M) indices of boxes and queries to (2, 1, U), with the most frequent box of each."""
    images = np.repeat(np.arange(len(counts)), counts)
    targets, queries = pairs.reshape(2, -1)
    in_batch = images[targets] * num_queries + queries  # unlike `queries`, distinct over images
    rows = np.stack((in_batch, targets, queries))
    (in_batch, targets, queries), times = np.unique(rows, axis=1, return_counts=True)
    order = np.lexsort((targets, -times, in_batch))
    _, first = np.unique(in_batch[order], return_index=True)
    return np.stack((targets, queries))[:, None, order[first]]
