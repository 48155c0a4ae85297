"""Convert logits and boxes to detections, without NMS.

Legend: B batch, Q queries, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rtdetr_cli.core.box_ops import cxcywh_to_xyxy
from rtdetr_cli.core.structures import Detections, ModelOutput


def top_detections(
    output: ModelOutput, sizes_hw: list[tuple[int, int]], max_det: int = 300
) -> list[Detections]:
    """Select the best (query, class) pairs of each image, as in the official evaluation.

    One query may yield several classes; keeping only its best one costs up to 0.9 AP.

    Args:
        output: predictions, logits (B, Q, K) and boxes (B, Q, 4).
        sizes_hw: (height, width) in pixels of each original image.
        max_det: maximum number of detections per image.

    Returns:
        One Detections per image, best first, boxes in pixels of the original image, not clipped.
    """
    scores, labels, boxes_cxcywh = rank_pairs(output.pred_logits, output.pred_boxes, max_det)
    boxes_xyxy = cxcywh_to_xyxy(boxes_cxcywh.float())
    sizes = torch.tensor([(w, h, w, h) for h, w in sizes_hw], device=boxes_xyxy.device)
    boxes_xyxy = boxes_xyxy * sizes[:, None]
    return [Detections(*parts) for parts in zip(boxes_xyxy, scores.float(), labels, strict=True)]


def rank_pairs(logits: Tensor, boxes: Tensor, max_det: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (B, R), labels (B, R) and boxes (B, R, 4) of the R best pairs, best first."""
    num_classes = logits.shape[-1]
    scores = logits.sigmoid().flatten(1)
    scores, pairs = scores.topk(min(max_det, scores.shape[1]), dim=1)
    queries = pairs // num_classes
    labels = pairs - queries * num_classes
    return scores, labels, boxes.gather(1, queries[..., None].expand(-1, -1, 4))
