"""The loss as the papers write it: Python floats, loops, no tensors. Slow and easy to check.

Sources: VFL arXiv 2008.13367, MAL arXiv 2412.04234, GIoU arXiv 1902.09630 algorithm 1, focal loss
arXiv 1708.02002, bipartite matching arXiv 2005.12872 section 3.1; the constants are the official
ones.
"""

from __future__ import annotations

import math
from itertools import permutations

import pytest


class SlowLoss:
    """Everything the criterion does to one prediction set, one number at a time."""

    @staticmethod
    def log_probability(logit):
        return -math.log1p(math.exp(-logit)) if logit >= 0 else logit - math.log1p(math.exp(logit))

    @staticmethod
    def iou_and_giou(box, other):
        def corners(cx, cy, width, height):
            return cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2

        ax0, ay0, ax1, ay1 = corners(*box)
        bx0, by0, bx1, by1 = corners(*other)
        intersection = max(0.0, min(ax1, bx1) - max(ax0, bx0)) * max(
            0.0, min(ay1, by1) - max(ay0, by0)
        )
        union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - intersection
        hull = (max(ax1, bx1) - min(ax0, bx0)) * (max(ay1, by1) - min(ay0, by0))
        iou = intersection / union if union > 0 else 0.0
        return iou, iou - ((hull - union) / hull if hull > 0 else 0.0)

    @classmethod
    def cost(cls, logit, box, target_box):
        probability = math.exp(cls.log_probability(logit))
        yes = -0.25 * (1 - probability) ** 2 * cls.log_probability(logit)
        no = -0.75 * probability**2 * cls.log_probability(-logit)
        l1 = sum(abs(a - b) for a, b in zip(box, target_box, strict=True))
        return 2 * (yes - no) + 5 * l1 - 2 * cls.iou_and_giou(box, target_box)[1]

    @classmethod
    def match(cls, logits, boxes, target):
        """{target: query} of one image, the cheapest of all assignments."""
        labels, target_boxes = target.labels.tolist(), target.boxes_cxcywh.tolist()
        cost = [
            [cls.cost(logits[q][label], boxes[q], box) for q in range(len(boxes))]
            for label, box in zip(labels, target_boxes, strict=True)
        ]
        every = permutations(range(len(boxes)), len(labels))
        best = min(every, key=lambda queries: sum(cost[t][q] for t, q in enumerate(queries)))
        return list(enumerate(best))

    @classmethod
    def match_all(cls, prediction, targets):
        images = zip(prediction.logits.tolist(), prediction.boxes.tolist(), targets, strict=True)
        return [cls.match(logits, boxes, target) for logits, boxes, target in images]

    @classmethod
    def terms(cls, prediction, targets, matches, num_boxes, classification="vfl"):
        """Weighted VFL or MAL, L1 and GIoU loss; matches: per image a list of (target, query)."""
        vfl = mal = l1 = giou_loss = 0.0
        for image, (logits, boxes) in enumerate(
            zip(prediction.logits.tolist(), prediction.boxes.tolist(), strict=True)
        ):
            score_of = {}  # (query, class) of the positives
            for t, q in matches[image]:
                target_box = targets[image].boxes_cxcywh[t].tolist()
                iou, giou = cls.iou_and_giou(boxes[q], target_box)
                score_of[q, int(targets[image].labels[t])] = iou
                l1 += sum(abs(a - b) for a, b in zip(boxes[q], target_box, strict=True))
                giou_loss += 1 - giou
            for q, row in enumerate(logits):
                for k, logit in enumerate(row):
                    log_p, log_not_p = cls.log_probability(logit), cls.log_probability(-logit)
                    if (q, k) in score_of:
                        score = score_of[q, k]
                        vfl -= score * (score * log_p + (1 - score) * log_not_p)
                        mal -= score**1.5 * log_p + (1 - score**1.5) * log_not_p
                    else:
                        mal -= math.exp(log_p) ** 1.5 * log_not_p
                        vfl -= 0.75 * math.exp(log_p) ** 2 * log_not_p
        return {
            f"loss_{classification}": {"vfl": vfl, "mal": mal}[classification] / num_boxes,
            "loss_bbox": 5 * l1 / num_boxes,
            "loss_giou": 2 * giou_loss / num_boxes,
        }


@pytest.fixture(scope="session")
def slow():
    return SlowLoss
