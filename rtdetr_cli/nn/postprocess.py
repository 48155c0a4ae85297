"""Convert logits and boxes to detections, without NMS.

backends/ranking.py does it for the outputs of graphs. Legend: B batch, Q queries, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rtdetr_cli.core.box_ops import cxcywh_to_xyxy
from rtdetr_cli.core.detections import ALL_PAIRS, Detections, Selection
from rtdetr_cli.core.structures import ModelOutput


def top_detections(
    output: ModelOutput,
    sizes_hw: list[tuple[int, int]],
    max_det: int = 300,
    selection: Selection = ALL_PAIRS,
) -> list[Detections]:
    """Select the best (query, class) pairs of each image, as in the official evaluation.

    One query may yield several classes; keeping only its best one costs up to 0.9 AP.

    Args:
        output: predictions, logits (B, Q, K) and boxes (B, Q, 4). A negative size, which
            distributions of edges can give, counts as 0.
        sizes_hw: (height, width) in pixels of each original image.
        max_det: maximum number of detections per image.
        selection: the pairs to select from.

    Returns:
        One Detections per image, best first, boxes in pixels of the original image, not clipped.
        As NumPy arrays, as detectors of all runtimes return them.
    """
    logits, num_pairs = _competing(output.pred_logits, selection)
    ranked = rank_pairs(logits, output.pred_boxes, min(max_det, num_pairs))
    scores, labels, boxes_cxcywh = ranked
    centre, size = boxes_cxcywh.float().split(2, dim=-1)
    boxes_xyxy = cxcywh_to_xyxy(torch.cat((centre, size.clamp(min=0)), dim=-1))
    sizes = torch.tensor([(w, h, w, h) for h, w in sizes_hw], device=boxes_xyxy.device)
    boxes_xyxy = boxes_xyxy * sizes[:, None]
    arrays = (part.detach().cpu().numpy() for part in (boxes_xyxy, scores.float(), labels))
    return [Detections(*parts) for parts in zip(*arrays, strict=True)]


def _competing(logits: Tensor, selection: Selection) -> tuple[Tensor, int]:
    """Logits (B, Q, K) with -inf for all other pairs, and the number of pairs of an image."""
    _, num_queries, num_classes = logits.shape
    if selection.classes is not None:
        chosen = [label for label in selection.classes if label < num_classes]
        others = torch.ones(num_classes, dtype=torch.bool, device=logits.device)
        others[chosen] = False
        logits = logits.masked_fill(others, -torch.inf)
        num_classes = len(set(chosen))
    if selection.one_label and num_classes:
        best = logits.argmax(-1, keepdim=True)
        others = torch.ones_like(logits, dtype=torch.bool).scatter(-1, best, False)
        logits = logits.masked_fill(others, -torch.inf)
        num_classes = 1
    return logits, num_queries * num_classes


def rank_pairs(logits: Tensor, boxes: Tensor, max_det: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (B, R), labels (B, R) and boxes (B, R, 4) of the R best pairs, best first."""
    num_classes = logits.shape[-1]
    scores = logits.sigmoid().flatten(1)
    scores, pairs = scores.topk(min(max_det, scores.shape[1]), dim=1)
    queries = pairs // num_classes
    labels = pairs - queries * num_classes
    return scores, labels, boxes.gather(1, queries[..., None].expand(-1, -1, 4))
