"""Distillation from a frozen feature extractor (RT-DETRv4, arXiv 2510.25257, section 3).

Legend: B batch, C channels of both maps, H W height and width.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def distill_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine similarity of the cells of two maps, their mean.

    Args:
        student: (B, C, H, W), projected to the channels of the teacher.
        teacher: (B, C, any height, any width), resized to H and W.
    """
    if teacher.shape[2:] != student.shape[2:]:
        size = list(student.shape[2:])
        teacher = F.interpolate(teacher, size, mode="bilinear", align_corners=False)
    return (1 - F.cosine_similarity(student, teacher.detach(), dim=1)).mean()
