"""The verdict on an exported file: whether, and how far, its detections differ from PyTorch's.

Both run on the same images and their detections are matched one to one. The exporters fail on a
bad verdict; benchmark.py prints it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rtdetr_cli.backends.load import Detector
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.console import progress, warn
from rtdetr_cli.core.detections import Detections
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.core.status import counted
from rtdetr_cli.data.selection import match_classes
from rtdetr_cli.engine.exporting.images import Images, prepare
from rtdetr_cli.evaluation.coco import CocoEvaluator

BATCH = 3
"""Does not divide the default number of images, so that two batch sizes are run."""
SURE = 0.25
"""Least score of a detection that a user sees: the default `conf` of predict."""
SAME_EDGE, SAME_SCORE = 0.05, 0.2
"""Largest differences of two detections of one object: edges in longer sides, and scores."""


@dataclass(frozen=True)
class Limits:
    """How far an export may differ from PyTorch.

    Attributes:
        edge: largest distance of two matching edges, in longer sides of the image.
        score: largest difference of two matching scores.
        matched: smallest share of all raw detections, weighted by score, that match.
        astray: most lost and new detections, as a share of PyTorch's with a score of 0.25 or more.
        ap: largest loss of AP, of 1, where the images have labels.
        shift: largest median distance, in longer sides: rounding does not move every box.
    """

    edge: float
    score: float
    matched: float
    astray: float
    ap: float
    shift: float = 1.0


LIMITS = {
    # The same arithmetic in another order drifts by a thousandth of a pixel. One pixel of 640 is
    # far above that and far below any fault. Nearly equal scores may change which detections are
    # the last of the 300, hence 0.99; AP changes by a tie or two.
    "fp32": Limits(edge=1 / 640, score=0.01, matched=0.99, astray=0.01, ap=0.002, shift=0.1 / 640),
    # 11 bits drift by 0.02 to 0.04 px of 640 in the median and 0.2 at p99; with the box chain in
    # float16 by 0.17 and 0.53, with it in bf16 by 5 (docs/benchmarks.md). The median separates
    # them. Scores, and so the selection, drift more: a logit of 8 by 0.004 in each operation.
    "fp16": Limits(edge=1 / 640, score=0.02, matched=0.98, astray=0.02, ap=0.003, shift=0.1 / 640),
    # Only products have the 11 bits of float16; sums and the box chain are float32.
    "tf32": Limits(edge=1 / 640, score=0.02, matched=0.98, astray=0.02, ap=0.003, shift=0.1 / 640),
    # 8 bits. With the first convolution and the sampling locations in float32, edges move by 0.1 px
    # of 640 in the median and 0.5 at p99, without by 0.5 and 2.4 (docs/benchmarks.md): the limits
    # are between the two.
    "bf16": Limits(edge=1 / 640, score=0.02, matched=0.98, astray=0.02, ap=0.003, shift=0.25 / 640),
    # 8 bits in backbone and encoder move every box a little, 3 px of 640 at p99 in a trained
    # model (docs/benchmarks.md); the criterion is half a point of AP. Letterboxed images or swapped
    # colors lose most detections, not one in ten; a decoder of 4 bits loses AP, one of 8 bits
    # moves boxes by 3.3 px of 640 in the median, where 0.5 to 1.3 are usual.
    "int8": Limits(edge=8 / 640, score=0.1, matched=0.9, astray=0.1, ap=0.005, shift=2 / 640),
}

_REPORT_KEYS = {"num_images": "images"}
"""Attributes of Agreement whose key in the JSON report has another name."""


class Drift(NamedTuple):
    """Median, 99th percentile and maximum of a distance."""

    median: float
    p99: float
    max: float

    def __str__(self) -> str:
        return f"{self.median:.3g} median, {self.p99:.3g} p99, {self.max:.3g} max"


@dataclass(frozen=True)
class Agreement:
    """How closely the detections of a file agree with PyTorch's.

    Attributes:
        num_images: images that both ran on.
        detections: those of PyTorch with a score of 0.25 or more; if 0, the drift is that of all
            raw detections.
        raw_detections: all of PyTorch's, usually 300 per image.
        matched: share of the raw detections, weighted by score, that have a partner of the same
            class within the limits; 0 if outputs are NaN.
        box_drift_px: largest edge distance of two partners, pixels of the image; None without
            partners.
        score_drift: difference between the scores of two partners.
        lost: detections of PyTorch, 0.25 or more, without a partner.
        new: detections of the file, 0.25 or more, without a partner.
        ap: AP of PyTorch and of the file on these images, if they have labels.
        limits: those to judge by.
        shift: median of the box drift, in the images' longer sides.
    """

    num_images: int
    detections: int
    raw_detections: int
    matched: float
    box_drift_px: Drift | None
    score_drift: Drift | None
    lost: int
    new: int
    ap: tuple[float, float] | None = None
    limits: Limits = LIMITS["fp32"]
    shift: float = 0.0

    @property
    def faults(self) -> list[str]:
        """Each value beyond its limit, with the limit."""
        limits = self.limits
        astray = (self.lost + self.new) / max(self.detections, 1)
        found = {
            f"{self.matched:.2%} match, at least {limits.matched:.0%} required": (
                self.matched < limits.matched
            ),
            f"{self.lost} lost and {self.new} new of {self.detections} detections, "
            f"at most {limits.astray:.0%} allowed": astray > limits.astray,
        }
        moved, allowed = 640 * self.shift, 640 * limits.shift
        found[f"median box shift {moved:.2f} px of 640, at most {allowed:.2g} allowed"] = (
            moved > allowed
        )
        if self.ap:
            drop = self.ap[0] - self.ap[1]
            found[f"AP fell by {drop:.4f}, at most {limits.ap} allowed"] = drop > limits.ap
        return [fault for fault, is_beyond in found.items() if is_beyond]

    @property
    def passes(self) -> bool:
        """Whether the exported file may be used."""
        return not self.faults

    def to_dict(self) -> dict[str, Any]:
        """Values for the JSON report."""
        drifts = {
            name: drift._asdict() if drift else None
            for name, drift in (
                ("box_drift_px", self.box_drift_px),
                ("score_drift", self.score_drift),
            )
        }
        compared = "detections" if self.detections else "raw detections"
        values = {_REPORT_KEYS.get(key, key): value for key, value in asdict(self).items()}
        values |= {**drifts, "compared": compared}
        return {"passes": self.passes, "faults": self.faults, **values}

    def __str__(self) -> str:
        lines = [
            f"{self.matched:.2%} of the raw detections on {counted(self.num_images, 'image')} "
            f"match; {self.detections} detections, {self.lost} lost, {self.new} new"
        ]
        lines += [f"box drift {self.box_drift_px} px"] if self.box_drift_px else []
        lines += [f"score drift {self.score_drift}"] if self.score_drift else []
        lines += (
            [f"AP {self.ap[0]:.4f} in PyTorch, {self.ap[1]:.4f} in the file"] if self.ap else []
        )
        return "; ".join(lines)


@dataclass(frozen=True)
class Predictions:
    """Raw detections of one detector on a list of images.

    Attributes:
        detections: one per image.
        sizes_hw: height and width of each image.
        ap: of 1; None unless the images have labels of the detector's classes.
    """

    detections: list[Detections]
    sizes_hw: list[tuple[int, int]]
    ap: float | None


def compare(
    reference: Detector, exported: Detector, images: Images, limits: Limits = LIMITS["fp32"]
) -> Agreement:
    """Run both on the same images, with the preprocessing of the reference, and judge."""
    ours, theirs = (
        run_detector(one, images, reference.preprocessing) for one in (reference, exported)
    )
    warn_if_other_classes(reference, ours, images)
    return judge(ours, theirs, limits)


def warn_if_other_classes(reference: Detector, predictions: Predictions, images: Images) -> None:
    """Warn if the labels have other classes than the model, which leaves AP undefined."""
    if images.truth and predictions.ap is None:
        warn(
            f"{images.origin} has {len(images.truth.names)} classes and the model "
            f"{len(reference.names)}, so only detections are compared, not AP"
        )


def run_detector(
    detector: Detector, images: Images, preprocessing: Preprocessing, label: str = "compare"
) -> Predictions:
    """Run a detector on images; its outputs need not be finite."""
    detections: list[Detections] = []
    sizes_hw: list[tuple[int, int]] = []
    total = len(images.sources)
    for start in progress(range(0, total, BATCH), -(-total // BATCH), label):
        pixels = images.read(start, start + BATCH)
        sizes = [(one.shape[0], one.shape[1]) for one in pixels]
        batch = torch.stack([prepare(one, preprocessing) for one in pixels])
        detections += detector.detect(batch, sizes)
        sizes_hw += sizes
    return Predictions(detections, sizes_hw, _ap(images, detector.names, detections))


def judge(ours: Predictions, theirs: Predictions, limits: Limits) -> Agreement:
    """Match the detections of two detectors one to one, image by image."""
    triples = zip(ours.detections, theirs.detections, ours.sizes_hw, strict=True)
    compared = [compare_image(a, b, max(size_hw), limits) for a, b, size_hw in triples]
    raw_detections = sum(map(len, ours.detections))
    ap = None if ours.ap is None or theirs.ap is None else (ours.ap, theirs.ap)
    return _sum_up(compared, raw_detections, limits, ap)


class ComparedImage(NamedTuple):
    """Detections of the reference and of the file on one image.

    Attributes:
        matched: sum of the scores, of both sides, of the pairs within the limits.
        total: sum of the scores of all detections of both sides.
        edges_px: (P,) largest edge distance of each pair of partners.
        shifts: (P,) the same in longer sides of the image.
        scores: (P,) difference of their scores.
        is_sure: (P,) whether one of the two has a score of SURE or more.
        sure: number of such detections of the reference.
        lost: those of them without a partner.
        new: those of the file without a partner.
    """

    matched: float
    total: float
    edges_px: Tensor
    shifts: Tensor
    scores: Tensor
    is_sure: Tensor
    sure: int
    lost: int
    new: int


def compare_image(
    ours: Detections, theirs: Detections, longer_side: int, limits: Limits
) -> ComparedImage:
    """Pair detections of the same class, with close boxes and scores, at the least total distance.

    Not by rank: nearly equal scores may be in another order.
    """
    (our_boxes, our_scores, our_labels), (their_boxes, their_scores, their_labels) = (
        map(torch.as_tensor, (one.boxes_xyxy, one.scores, one.labels)) for one in (ours, theirs)
    )
    edges = (our_boxes[:, None] - their_boxes).abs().amax(-1)
    scores = (our_scores[:, None] - their_scores).abs()
    is_near = (edges <= SAME_EDGE * longer_side) & (scores <= SAME_SCORE)
    is_near &= our_labels[:, None] == their_labels
    tolerance_px = limits.edge * longer_side
    cost = (edges / tolerance_px + scores / limits.score).where(is_near, 1e4)
    rows, columns = map(torch.as_tensor, linear_sum_assignment(cost.numpy()))
    is_pair = is_near[rows, columns]
    rows, columns = rows[is_pair], columns[is_pair]
    edges, scores = edges[rows, columns], scores[rows, columns]
    weights = our_scores[rows] + their_scores[columns]
    is_matched = (edges <= tolerance_px) & (scores <= limits.score)
    sure = [one >= SURE for one in (our_scores, their_scores)]
    paired = [one[places] for one, places in zip(sure, (rows, columns), strict=True)]
    lost, new = (int(a.sum() - b.sum()) for a, b in zip(sure, paired, strict=True))
    return ComparedImage(
        matched=float(weights[is_matched].sum()),
        total=float(our_scores.sum() + their_scores.sum()),
        edges_px=edges,
        shifts=edges / longer_side,
        scores=scores,
        is_sure=paired[0] | paired[1],
        sure=int(sure[0].sum()),
        lost=lost,
        new=new,
    )


def warn_if_unsure(agreement: Agreement) -> None:
    """Warn if no detection of PyTorch is sure, as with random weights or unusual images."""
    if agreement.passes and not agreement.detections:
        warn(
            f"no detection reaches a score of {SURE} on these {agreement.num_images} images, so "
            f"{agreement.raw_detections} raw detections were compared: the arithmetic is right, "
            "but actual detections are untested; give trained weights or data= with your own images"
        )


def _sum_up(
    compared: list[ComparedImage],
    raw_detections: int,
    limits: Limits,
    ap: tuple[float, float] | None,
) -> Agreement:
    total = sum(one.total for one in compared)
    share = sum(one.matched for one in compared) / total if total else 0.0
    detections, lost, new = (
        sum(getattr(one, name) for one in compared) for name in ("sure", "lost", "new")
    )
    counted = torch.cat([one.is_sure for one in compared])
    if not detections:
        counted = torch.ones_like(counted)
    edges, shifts, scores = (
        torch.cat([getattr(one, n) for one in compared])[counted]
        for n in ("edges_px", "shifts", "scores")
    )
    return Agreement(
        num_images=len(compared),
        detections=detections,
        raw_detections=raw_detections,
        matched=share if math.isfinite(share) else 0.0,
        box_drift_px=_drift(edges),
        score_drift=_drift(scores),
        lost=lost,
        new=new,
        ap=ap,
        limits=limits,
        shift=float(np.median(shifts)) if len(shifts) else 0.0,
    )


def _drift(values: Tensor) -> Drift | None:
    if not len(values):
        return None
    return Drift(*np.percentile(values.double().numpy(), [50, 99, 100]).tolist())


def _ap(images: Images, names: dict[int, str], found: list[Detections]) -> float | None:
    """AP, of 1; None without labels, or if the detector knows none of their classes."""
    if images.truth is None:
        return None
    try:
        truth = match_classes(images.truth, names)
    except UsageError:
        return None
    evaluator = CocoEvaluator(truth.ground_truth(), truth.category_ids)
    for record, detections in zip(truth.records, found, strict=True):
        boxes, scores = detections.boxes_xyxy, detections.scores
        finite = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
        known = (detections.labels >= 0) & (detections.labels < len(names))
        evaluator.update(record.image_id, detections.keep(finite & known))
    return evaluator.compute().box.map
