"""The loss of RT-DETR over all decoder layers, the encoder and the denoising queries.

Networks that predict distributions have two more terms (loss/distribution.py).

Legend: S prediction sets (decoder layers and the encoder), B batch, Q queries, K classes,
T ground-truth boxes of the whole batch, M matched pairs in each set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rtdetr_cli.core.distributed import all_reduce_mean, loss_normalizer
from rtdetr_cli.core.structures import (
    DenoisingGroups,
    Distributions,
    ModelOutput,
    Prediction,
    Target,
)
from rtdetr_cli.loss.distribution import QueryWeights, distribution_losses, query_weights
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
    refinement: bool = True
    """For networks that predict distributions: box losses on the union of the matches of all sets,
    FGL and DDF (D-FINE, DEIM). Off in DEIMv2 Atto, Femto and Pico."""
    weight_fgl: float = 0.15
    """Weight of FGL (Peterande/D-FINE 4a1f73a, configs/dfine/include/dfine_hgnetv2.yml)."""
    weight_ddf: float = 1.5
    """Weight of DDF (the same file)."""


class Pairs(NamedTuple):
    """Matches and the divisor of the losses of their pairs."""

    matches: Matches
    divisor: Tensor | float


class Criterion(nn.Module):
    """Classification, L1 and GIoU loss of all predictions, each set matched on its own.

    If the network predicts distributions, the union of these matches serves the boxes of all sets,
    divided by its own size, and FGL and DDF are added (D-FINE, section 4). Nothing that is not
    finite is replaced by zero: the training step must see it (engine/training/step.py).

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
            `_dn_0`... of every layer's denoising queries. With distributions also those of the
            first layer's ordinary boxes, `_pre` and `_dn_pre`, and `loss_fgl` and `loss_ddf` of
            every layer (DDF: but the last).
        """
        with torch.autocast(output.pred_logits.device.type, enabled=False):
            sets = _matched_sets(output)
            prediction = _stack(sets.values())
            truth = flatten_targets(targets, like=prediction.boxes)
            own, shared = self._match(output, prediction, truth)
            losses = _name(self._terms(prediction, truth, own, shared), sets)

            restored = None
            if output.denoising_groups is not None:
                sets = _denoising_sets(output)
                restored = _denoising_pairs(output.denoising_groups, truth, own, len(sets))
                terms = self._terms(_stack(sets.values()), truth, restored, restored)
                losses |= _name(terms, sets)
            if self._refines(output):
                losses |= self._distribution_terms(output, truth, shared, restored)
        return losses

    def shown(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """The terms that a log shows: those of the last decoder layer.

        DDF, which the last layer has not, is that of the layer before it, and named `loss_ddf`.

        Args:
            losses: as returned by `forward`.
        """
        shown = {name: losses[name] for name in (*self.names, "loss_fgl") if name in losses}
        ddf = [value for name, value in losses.items() if name.startswith("loss_ddf_aux_")]
        if ddf:
            shown["loss_ddf"] = ddf[-1]
        return shown

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
            pairs = Pairs(self.matcher(prediction, truth), 1.0)
            terms = self._terms(prediction, truth, pairs, pairs)
        return {name: value.squeeze(0) for name, value in terms.items()}

    def _refines(self, output: ModelOutput) -> bool:
        return self.config.refinement and output.distributions is not None

    def _match(
        self, output: ModelOutput, prediction: Prediction, truth: FlatTargets
    ) -> tuple[Pairs, Pairs]:
        """The pairs of each set, and those of its boxes: the same, or the union of all sets."""
        num_boxes = loss_normalizer(prediction.boxes.new_full((), len(truth.labels)))
        if not self._refines(output):
            own = Pairs(self.matcher(prediction, truth), num_boxes)
            return own, own
        matches, union = self.matcher.with_union(prediction, truth)
        num_pairs = loss_normalizer(prediction.boxes.new_full((), union.queries.numel()))
        return Pairs(matches, num_boxes), Pairs(union, num_pairs)

    def _terms(
        self, prediction: Prediction, truth: FlatTargets, own: Pairs, shared: Pairs
    ) -> dict[str, Tensor]:
        """The three weighted terms of each set, (S,) each; unmatched queries are background.

        Args:
            prediction: of the S sets.
            truth: ground truth of the batch.
            own: pairs of the classification loss.
            shared: pairs of the losses of boxes.
        """
        positives, boxes, target_boxes = _gather(prediction, truth, own.matches)
        iou, giou = box_overlap(boxes, target_boxes)
        classification = self._classification(prediction.logits, positives, iou)
        if shared is not own:
            _, boxes, target_boxes = _gather(prediction, truth, shared.matches)
            _, giou = box_overlap(boxes, target_boxes)
        config = self.config
        terms = (
            config.weight_class * classification / own.divisor,
            config.weight_bbox * l1_loss(boxes, target_boxes) / shared.divisor,
            config.weight_giou * giou_loss(giou) / shared.divisor,
        )
        return dict(zip(self.names, terms, strict=True))

    def _classification(self, logits: Tensor, positives: tuple[Tensor, ...], iou: Tensor) -> Tensor:
        config = self.config
        if config.classification == "mal":
            return mal_loss(logits, positives, iou, config.mal_gamma)
        return vfl_loss(logits, positives, iou, config.vfl_alpha, config.vfl_gamma)

    def _distribution_terms(
        self, output: ModelOutput, truth: FlatTargets, union: Pairs, restored: Pairs | None
    ) -> dict[str, Tensor]:
        """FGL and DDF of the decoder's queries, and of the denoising queries if there are any."""
        layers, denoising = _decoder_layers(output), _denoising_layers(output)
        counts = [*_count_queries(layers, union), *_count_queries(denoising, restored)]
        both = all_reduce_mean(truth.boxes_cxcywh.new_tensor(counts)).reshape(2, 2)
        weights = [query_weights(both[0], own) for own in both]
        assert output.distributions is not None
        losses = self._refinement(layers, output.distributions, truth, union, weights[0])
        if restored is not None and output.denoising_distributions is not None:
            distributions = output.denoising_distributions
            losses |= self._refinement(denoising, distributions, truth, restored, weights[1])
        return losses

    def _refinement(
        self,
        sets: dict[str, Prediction],
        distributions: Distributions,
        truth: FlatTargets,
        pairs: Pairs,
        weights: QueryWeights,
    ) -> dict[str, Tensor]:
        """FGL of all decoder layers and DDF of all but the last, named and weighted."""
        layers = list(sets.values())
        fgl, ddf = distribution_losses(layers, distributions, truth, pairs.matches, weights)
        terms = {
            "loss_fgl": self.config.weight_fgl * fgl / pairs.divisor,
            "loss_ddf": self.config.weight_ddf * ddf,
        }
        return _name(terms, sets)


def _matched_sets(output: ModelOutput) -> dict[str, Prediction]:
    """The sets that go through the matcher, by the suffix of their names."""
    sets = {"": Prediction(output.pred_logits, output.pred_boxes)}
    sets |= {f"_aux_{layer}": aux for layer, aux in enumerate(output.aux_outputs)}
    if output.encoder_output is not None:
        sets["_enc"] = output.encoder_output
    if output.distributions is not None:
        sets["_pre"] = output.distributions.initial
    return sets


def _denoising_sets(output: ModelOutput) -> dict[str, Prediction]:
    """The sets of the denoising queries, by the suffix of their names."""
    sets = _denoising_layers(output)
    if output.denoising_distributions is not None:
        sets["_dn_pre"] = output.denoising_distributions.initial
    return sets


def _decoder_layers(output: ModelOutput) -> dict[str, Prediction]:
    """The decoder layers in their order, by suffix."""
    layers = {f"_aux_{layer}": aux for layer, aux in enumerate(output.aux_outputs)}
    return layers | {"": Prediction(output.pred_logits, output.pred_boxes)}


def _denoising_layers(output: ModelOutput) -> dict[str, Prediction]:
    """The same for the denoising queries."""
    return {f"_dn_{layer}": output for layer, output in enumerate(output.denoising_outputs)}


def _stack(sets: Iterable[Prediction]) -> Prediction:
    """S predictions to one of logits (S, B, Q, K) and boxes (S, B, Q, 4), at least float32."""
    logits, boxes = (torch.stack(tensors) for tensors in zip(*sets, strict=True))
    dtype = torch.promote_types(torch.promote_types(logits.dtype, boxes.dtype), torch.float32)
    return Prediction(logits.to(dtype), boxes.to(dtype))


def _gather(
    prediction: Prediction, truth: FlatTargets, matches: Matches
) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Index of the positives in the logits; predicted and target boxes, (S, M, 4) and (?, M, 4)."""
    sets = torch.arange(len(prediction.boxes), device=prediction.boxes.device)[:, None]
    images = truth.images[matches.targets]  # (S, M)
    positives = (sets, images, matches.queries, truth.labels[matches.targets])
    return positives, prediction.boxes[positives[:3]], truth.boxes_cxcywh[matches.targets]


def _denoising_pairs(
    groups: DenoisingGroups, truth: FlatTargets, own: Pairs, num_sets: int
) -> Pairs:
    """Positives belong to their box by construction, the same in every decoder layer."""
    starts = [sum(truth.counts[:image]) for image in range(len(truth.counts))]
    targets = [
        indices + start for indices, start in zip(groups.target_indices, starts, strict=True)
    ]
    matches = Matches(
        torch.cat(groups.positive_queries).expand(num_sets, -1),
        torch.cat(targets).expand(num_sets, -1),
    )
    return Pairs(matches, own.divisor * groups.num_groups)


def _count_queries(sets: dict[str, Prediction], pairs: Pairs | None) -> tuple[int, int]:
    """Queries that have a box, and those that have none; no queries if there are no pairs."""
    if pairs is None:
        return 0, 0
    batch, queries = next(iter(sets.values())).boxes.shape[:2]
    matched = pairs.matches.queries.shape[1]
    return matched, batch * queries - matched


def _name(terms: dict[str, Tensor], suffixes: Iterable[str]) -> dict[str, Tensor]:
    """(S,) terms to named scalars; a term may lack the last sets."""
    suffixes = list(suffixes)
    return {
        term + suffix: value
        for term, values in terms.items()
        for suffix, value in zip(suffixes, values.unbind(), strict=False)
    }
