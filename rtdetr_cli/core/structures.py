"""Data structures of training and of the network: Target, Batch, ModelOutput.

Legend: B batch, Q queries, K classes, N boxes of one image. What a detector returns is in
core/detections.py, the public Results in core/results.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass
class Target:
    """Ground truth of one image.

    Attributes:
        boxes_cxcywh: (N, 4) float32, fractions of the image's width and height.
        labels: (N,) int64, class indices 0..K-1.
    """

    boxes_cxcywh: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> Target:
        """Copy to a device."""
        return Target(self.boxes_cxcywh.to(device), self.labels.to(device))


@dataclass
class Batch:
    """A batch of images and targets.

    Attributes:
        images: (B, 3, H, W) float32 RGB in 0..1, resized to one size.
        targets: ground truth of each image; boxes in fractions are invariant to the resize.
        image_ids: id of each image in its data set.
        sizes_hw: (height, width) in pixels of each upright image before the resize.
        paths: source path of each image.
        preprocess_s: seconds of resizing and conversion of all images; for evaluation only.
        resized: the images at further sizes; for evaluation with augmentation only.
    """

    images: Tensor
    targets: list[Target]
    image_ids: list[int]
    sizes_hw: list[tuple[int, int]]
    paths: list[str]
    preprocess_s: float = 0.0
    resized: list[Tensor] = field(default_factory=list)

    def to(self, device: torch.device | str) -> Batch:
        """Copy images and targets to a device."""
        images = self.images.to(device, non_blocking=True)
        targets = [target.to(device) for target in self.targets]
        return replace(self, images=images, targets=targets)

    def __len__(self) -> int:
        return len(self.targets)


class Prediction(NamedTuple):
    """Predictions of one layer: `logits` (B, Q, K) before the sigmoid, `boxes` (B, Q, 4) cxcywh."""

    logits: Tensor
    boxes: Tensor


class Distributions(NamedTuple):
    """What an FDR decoder adds to its predictions in training (core/distribution.py).

    Attributes:
        corners: (B, Q, 4, R + 1) logits over the bins of each edge, of every decoder layer.
        references: (B, Q, 4) cxcywh, detached: the boxes that all distances refer to.
        initial: ordinary prediction of the first layer, whose boxes are the references.
        scale: `reg_scale` of the weighting function.
    """

    corners: list[Tensor]
    references: Tensor
    initial: Prediction
    scale: float


class DenoisingGroups(NamedTuple):
    """The positive denoising queries and their ground truth boxes.

    Attributes:
        positive_queries: per image (P,) int64, index of the query among the denoising queries.
        target_indices: per image (P,) int64, index of the box that the query reconstructs.
        num_groups: number of repetitions of each box.
        num_queries: number of denoising queries, the same for all images.
    """

    positive_queries: list[Tensor]
    target_indices: list[Tensor]
    num_groups: int
    num_queries: int


@dataclass
class ModelOutput:
    """Output of the network.

    Attributes:
        pred_logits: (B, Q, K) of the last decoder layer that runs, before the sigmoid.
        pred_boxes: (B, Q, 4) cxcywh in 0..1 of the same layer.
        aux_outputs: outputs of the previous decoder layers, in order (training only).
        encoder_output: predictions of the selected encoder tokens (training only).
        denoising_outputs: outputs of all decoder layers for the denoising queries (training only).
        denoising_groups: assignment of these queries to the ground truth (training only).
        distributions: of the matched queries of an FDR decoder (training only).
        denoising_distributions: the same of the denoising queries (training only).
    """

    pred_logits: Tensor
    pred_boxes: Tensor
    aux_outputs: list[Prediction] = field(default_factory=list)
    encoder_output: Prediction | None = None
    denoising_outputs: list[Prediction] = field(default_factory=list)
    denoising_groups: DenoisingGroups | None = None
    distributions: Distributions | None = None
    denoising_distributions: Distributions | None = None
