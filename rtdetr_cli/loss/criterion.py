"""The loss of RT-DETR over all decoder layers, the encoder and the denoising queries.

Legend: S prediction sets (decoder layers and the encoder), B batch, Q queries, K classes,
T ground-truth boxes of the whole batch, M matched pairs in each set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rtdetr_cli.core.distributed import loss_normalizer
from rtdetr_cli.core.structures import DenoisingGroups, ModelOutput, Prediction, Target
from rtdetr_cli.loss.matcher import FlatTargets, HungarianMatcher, Matches, flatten_targets
from rtdetr_cli.loss.terms import box_overlap, giou_loss, l1_loss, mal_loss, vfl_loss


@dataclass(frozen=True)
class LossConfig:
    """The official constants (lyuwenyu/RT-DETR, rtdetrv2_pytorch, rtdetrv2_r50vd.yml)."""

    classification: str = "vfl"
    """`vfl`, varifocal, or `mal`, matchability-aware; names the term, as in `loss_vfl`."""
    weight_class: float = 1.0
    """Weight of the classification loss."""
    weight_bbox: float = 5.0
    """Weight of the L1 loss."""
    weight_giou: float = 2.0
    """Weight of the GIoU loss."""
    vfl_alpha: float = 0.75
    """Weight of the negatives in the varifocal loss."""
    vfl_gamma: float = 2.0
    """Focus of the varifocal loss on confident negatives."""
    mal_gamma: float = 1.5
    """Exponent of the matchability-aware loss (DEIM, configs/base/deim.yml)."""


class Criterion(nn.Module):
    """Classification, L1 and GIoU loss of all predictions, each set matched on its own.

    Computed in float32 whatever the precision of the network (float64 stays float64), all sets in
    one pass. Divided by the number of ground-truth boxes per process, at least one in all of them,
    so that the mean of the processes' gradients is that of one process with the whole batch.
    """

    def __init__(
        self, matcher: HungarianMatcher | None = None, config: LossConfig | None = None
    ) -> None:
        super().__init__()
        self.matcher = matcher or HungarianMatcher()
        self.config = config or LossConfig()
        self.names = (f"loss_{self.config.classification}", "loss_bbox", "loss_giou")
        """Names of the terms of one prediction set; the last decoder layer uses them unsuffixed."""

    def forward(self, output: ModelOutput, targets: list[Target]) -> dict[str, Tensor]:
        """Compute the weighted terms, whose sum is the loss (RT-DETR equation 3).

        Args:
            output: logits (B, Q, K) and boxes (B, Q, 4) cxcywh in 0..1 of every prediction set.
            targets: ground truth of the B images.

        Returns:
            Scalars: `loss_vfl` (or `loss_mal`), `loss_bbox` and `loss_giou` of the last decoder
            layer; with the suffix `_aux_0`... of the layers before it, `_enc` of the encoder,
            `_dn_0`... of every layer's denoising queries.
        """
        with torch.autocast(output.pred_logits.device.type, enabled=False):
            sets = _matched_sets(output)
            prediction = _stack(sets.values())
            truth = flatten_targets(targets, like=prediction.boxes)
            num_boxes = loss_normalizer(prediction.boxes.new_full((), len(truth.labels)))
            matches = self.matcher(prediction, truth)
            losses = _name(self._terms(prediction, truth, matches), sets, num_boxes)

            groups = output.denoising_groups
            if groups is not None:
                names = [f"_dn_{layer}" for layer in range(len(output.denoising_outputs))]
                prediction = _stack(output.denoising_outputs)
                matches = _denoising_matches(groups, truth, num_sets=len(names))
                terms = self._terms(prediction, truth, matches)
                losses |= _name(terms, names, num_boxes * groups.num_groups)
        return losses

    @torch.no_grad()
    def last_layer_sums(self, output: ModelOutput, targets: list[Target]) -> dict[str, Tensor]:
        """The terms of the last decoder layer before the division by the number of boxes.

        For validation, whose processes may have different numbers of batches: nothing is exchanged
        between them.

        Args:
            output: of which `pred_logits` (B, Q, K) and `pred_boxes` (B, Q, 4) are used.
            targets: ground truth of the B images.

        Returns:
            Scalars: `loss_vfl` (or `loss_mal`), `loss_bbox` and `loss_giou`, weighted as in
            `forward`, summed over the boxes of the batch.
        """
        with torch.autocast(output.pred_logits.device.type, enabled=False):
            prediction = _stack([Prediction(output.pred_logits, output.pred_boxes)])
            truth = flatten_targets(targets, like=prediction.boxes)
            terms = self._terms(prediction, truth, self.matcher(prediction, truth))
        return {name: value.squeeze(0) for name, value in terms.items()}

    def _terms(
        self, prediction: Prediction, truth: FlatTargets, matches: Matches
    ) -> dict[str, Tensor]:
        """The three weighted terms of each set, (S,) each; unmatched queries are background."""
        sets = torch.arange(len(prediction.boxes), device=prediction.boxes.device)[:, None]
        images = truth.images[matches.targets]  # (S, M)
        boxes = prediction.boxes[sets, images, matches.queries]  # (S, M, 4)
        target_boxes = truth.boxes_cxcywh[matches.targets]  # (S, M, 4)
        iou, giou = box_overlap(boxes, target_boxes)
        positives = (sets, images, matches.queries, truth.labels[matches.targets])
        config = self.config
        terms = (
            config.weight_class * self._classification(prediction.logits, positives, iou),
            config.weight_bbox * l1_loss(boxes, target_boxes),
            config.weight_giou * giou_loss(giou),
        )
        return dict(zip(self.names, terms, strict=True))

    def _classification(self, logits: Tensor, positives: tuple[Tensor, ...], iou: Tensor) -> Tensor:
        config = self.config
        if config.classification == "mal":
            return mal_loss(logits, positives, iou, config.mal_gamma)
        return vfl_loss(logits, positives, iou, config.vfl_alpha, config.vfl_gamma)


def _matched_sets(output: ModelOutput) -> dict[str, Prediction]:
    """The sets that go through the matcher, by the suffix of their names."""
    sets = {"": Prediction(output.pred_logits, output.pred_boxes)}
    sets |= {f"_aux_{layer}": aux for layer, aux in enumerate(output.aux_outputs)}
    if output.encoder_output is not None:
        sets["_enc"] = output.encoder_output
    return sets


def _stack(sets: Iterable[Prediction]) -> Prediction:
    """S predictions to one of logits (S, B, Q, K) and boxes (S, B, Q, 4), at least float32."""
    logits, boxes = (torch.stack(tensors) for tensors in zip(*sets, strict=True))
    dtype = torch.promote_types(torch.promote_types(logits.dtype, boxes.dtype), torch.float32)
    return Prediction(logits.to(dtype), boxes.to(dtype))


def _denoising_matches(groups: DenoisingGroups, truth: FlatTargets, num_sets: int) -> Matches:
    """Positives belong to their box by construction, the same in every decoder layer."""
    starts = [sum(truth.counts[:image]) for image in range(len(truth.counts))]
    targets = [
        indices + start for indices, start in zip(groups.target_indices, starts, strict=True)
    ]
    return Matches(
        torch.cat(groups.positive_queries).expand(num_sets, -1),
        torch.cat(targets).expand(num_sets, -1),
    )


def _name(
    terms: dict[str, Tensor], suffixes: Iterable[str], num_boxes: Tensor
) -> dict[str, Tensor]:
    """(S,) terms to named scalars per box."""
    suffixes = list(suffixes)
    return {
        term + suffix: value
        for term, values in terms.items()
        for suffix, value in zip(suffixes, (values / num_boxes).unbind(), strict=True)
    }
