"""The verdict on an exported file: whether it answers as PyTorch does, and how far it is off.

Both see the same images and their detections are matched one to one. export.py acts on it,
benchmark.py prints it.
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
from rtdetr_cli.core.structures import Detections
from rtdetr_cli.engine.exporting.images import Images, prepare
from rtdetr_cli.evaluation.coco import CocoEvaluator

BATCH = 3
"""Does not divide the number of images, so that two sizes of a batch are run."""
SURE = 0.25
"""Score from which on a detection is one that a user sees (the default of predict)."""
SAME_EDGE, SAME_SCORE = 0.05, 0.2
"""Within these (the image's longer side; score) two answers are the same object, drifted."""


@dataclass(frozen=True)
class Limits:
    """How far an export may be off.

    Attributes:
        edge: distance between two edges that match, in the image's longer side.
        score: difference between two scores that match.
        matched: least share of all answers, weighted by score, that must match.
        astray: most lost and additional detections, as a share of those that PyTorch is sure of.
        ap: most AP that may be lost, of 1, where the images have labels.
        shift: median of those distances: what moves every box a little is no rounding.
    """

    edge: float
    score: float
    matched: float
    astray: float
    ap: float
    shift: float = 1.0


LIMITS = {
    # The same arithmetic in another order: real drift is a thousandth of a pixel. One pixel of 640
    # is far above that and far below any fault. Where scores are all but equal the last of the 300
    # may be others, hence 0.99; AP moves by a tie or two.
    "fp32": Limits(edge=1 / 640, score=0.01, matched=0.99, astray=0.01, ap=0.002, shift=0.1 / 640),
    # 11 bits. Real drift is 0.02 to 0.04 px of 640 in the median and 0.2 at p99; with the box chain
    # in float16 it is 0.17 and 0.53, with that in bf16 5 (docs/export.md). The median tells them
    # apart. Scores drift more, a logit of 8 by 0.004 in each operation, and so does the selection.
    "fp16": Limits(edge=1 / 640, score=0.02, matched=0.98, astray=0.02, ap=0.003, shift=0.1 / 640),
    # Products only, and each has the 11 bits of float16; sums and the box chain are float32.
    "tf32": Limits(edge=1 / 640, score=0.02, matched=0.98, astray=0.02, ap=0.003, shift=0.1 / 640),
    # 8 bits. With first convolution and sampling places in float32 an edge moves by 0.1 px of 640
    # in the median and 0.5 at p99 (docs/export.md), without by 0.5 and 2.4: between the two.
    "bf16": Limits(edge=1 / 640, score=0.02, matched=0.98, astray=0.02, ap=0.003, shift=0.25 / 640),
    # 8 bits in backbone and encoder move every box a little, 3 px of 640 at p99 in a trained
    # model (docs/export.md); what counts is half a point of AP. Letterboxed images or other
    # colours lose most detections, not one in ten; a decoder of 4 bits loses AP, one of 8 bits
    # moves boxes by 3.3 px of 640 in the median, where 0.5 to 1.3 are usual.
    "int8": Limits(edge=8 / 640, score=0.1, matched=0.9, astray=0.1, ap=0.005, shift=2 / 640),
}


class Drift(NamedTuple):
    """Median, 99th percentile and maximum of a distance."""

    median: float
    p99: float
    max: float

    def __str__(self) -> str:
        return f"{self.median:.3g} median, {self.p99:.3g} p99, {self.max:.3g} max"


@dataclass(frozen=True)
class Agreement:
    """How nearly two detectors answer the same.

    Attributes:
        images: number of images that both have seen.
        detections: those with a score of 0.25 or more in PyTorch; 0 if there is none on any
            image, then the drift is that of all raw answers.
        answers: all that PyTorch gave, 300 an image as a rule.
        matched: share of the answers, weighted by score, that have a partner of the same class
            within the limits; 0 where answers are no numbers.
        box_drift_px: distance between the farthest edges of partners, pixels of the image; None
            without partners.
        score_drift: difference between the scores of partners.
        lost: detections of PyTorch, 0.25 or more, without a partner near by.
        new: detections of the file, 0.25 or more, without a partner near by.
        ap: AP of PyTorch and of the file on these images, where they have labels.
        limits: what it may be.
        shift: median of the box drift, in the images' longer sides.
    """

    pictures: int
    detections: int
    answers: int
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
        """What is beyond its limit, in words."""
        limits = self.limits
        astray = (self.lost + self.new) / max(self.detections, 1)
        found = {
            f"{self.matched:.2%} match, {limits.matched:.0%} must": self.matched < limits.matched,
            f"{self.lost} lost and {self.new} new of {self.detections} detections, "
            f"{limits.astray:.0%} may": astray > limits.astray,
        }
        moved, may = 640 * self.shift, 640 * limits.shift
        found[f"boxes move by {moved:.2f} of 640 px in the median, {may:.2g} may"] = moved > may
        if self.ap:
            drop = self.ap[0] - self.ap[1]
            found[f"AP fell by {drop:.4f}, {limits.ap} may"] = drop > limits.ap
        return [fault for fault, is_there in found.items() if is_there]

    @property
    def passes(self) -> bool:
        """Whether the exported file may be used."""
        return not self.faults

    def to_dict(self) -> dict[str, Any]:
        """For a report in JSON."""
        drifts = {
            name: drift._asdict() if drift else None
            for name, drift in (
                ("box_drift_px", self.box_drift_px),
                ("score_drift", self.score_drift),
            )
        }
        compared = "detections" if self.detections else "raw answers"
        values = {**asdict(self), **drifts, "compared": compared}
        return {"passes": self.passes, "faults": self.faults, **values}

    def __str__(self) -> str:
        lines = [
            f"{self.matched:.2%} of the answers on {self.pictures} images match; "
            f"{self.detections} detections, {self.lost} lost, {self.new} new"
        ]
        lines += [f"boxes drift by {self.box_drift_px} px"] if self.box_drift_px else []
        lines += [f"scores drift by {self.score_drift}"] if self.score_drift else []
        lines += (
            [f"AP {self.ap[0]:.4f} in PyTorch, {self.ap[1]:.4f} in the file"] if self.ap else []
        )
        return "; ".join(lines)


@dataclass(frozen=True)
class Answers:
    """What one detector finds in each image.

    Attributes:
        found: image by image.
        sizes_hw: height and width of each.
        ap: of 1, where the images have labels of the detector's classes.
    """

    found: list[Detections]
    sizes_hw: list[tuple[int, int]]
    ap: float | None


def compare(
    reference: Detector, exported: Detector, pictures: Images, limits: Limits = LIMITS["fp32"]
) -> Agreement:
    """Run both on the same images, prepared as the reference wants them, and judge."""
    ours, theirs = (ask(one, pictures, reference.preprocessing) for one in (reference, exported))
    warn_if_other_classes(reference, ours, pictures)
    return judge(ours, theirs, limits)


def warn_if_other_classes(reference: Detector, answers: Answers, pictures: Images) -> None:
    """Say that labels are there and give no AP."""
    if pictures.truth and answers.ap is None:
        warn(
            f"{pictures.origin} has {len(pictures.truth.names)} classes and the model "
            f"{len(reference.names)}, so only detections are compared, not AP"
        )


def ask(
    detector: Detector, pictures: Images, preprocessing: Preprocessing, label: str = "compare"
) -> Answers:
    """Run a detector over images; what it finds may be nonsense."""
    found: list[Detections] = []
    sizes_hw: list[tuple[int, int]] = []
    total = len(pictures.sources)
    for start in progress(range(0, total, BATCH), -(-total // BATCH), label):
        batch = pictures.read(start, start + BATCH)
        sizes = [(picture.shape[0], picture.shape[1]) for picture in batch]
        images = torch.stack([prepare(picture, preprocessing) for picture in batch])
        found += detector.detect(images, sizes)
        sizes_hw += sizes
    return Answers(found, sizes_hw, _ap(pictures, len(detector.names), found))


def judge(ours: Answers, theirs: Answers, limits: Limits) -> Agreement:
    """Match the answers of two detectors one to one, image by image."""
    triples = zip(ours.found, theirs.found, ours.sizes_hw, strict=True)
    compared = [compare_image(a, b, max(size_hw), limits) for a, b, size_hw in triples]
    answers = sum(map(len, ours.found))
    ap = None if ours.ap is None or theirs.ap is None else (ours.ap, theirs.ap)
    return _sum_up(compared, answers, limits, ap)


class ComparedImage(NamedTuple):
    """Two answers to one image.

    Attributes:
        matched: scores, of both sides, of the pairs within the limits.
        total: scores of all answers of both sides.
        edges_px: (P,) distance of each pair of partners.
        shifts: (P,) the same in the image's longer side.
        scores: (P,) difference of their scores.
        is_sure: (P,) whether one of the two is a detection that a user sees.
        sure: number of such detections in the reference.
        lost: those of them without a partner.
        new: those of the other side without a partner.
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
    """Find each answer's partner: same class, near by, score alike; the nearest over all.

    Not by rank: answers with nearly equal scores may stand in another order.
    """
    edges = (ours.boxes_xyxy[:, None] - theirs.boxes_xyxy).abs().amax(-1)
    scores = (ours.scores[:, None] - theirs.scores).abs()
    is_near = (edges <= SAME_EDGE * longer_side) & (scores <= SAME_SCORE)
    is_near &= ours.labels[:, None] == theirs.labels
    tolerance_px = limits.edge * longer_side
    cost = (edges / tolerance_px + scores / limits.score).where(is_near, 1e4)
    rows, columns = map(torch.as_tensor, linear_sum_assignment(cost.numpy()))
    is_pair = is_near[rows, columns]
    rows, columns = rows[is_pair], columns[is_pair]
    edges, scores = edges[rows, columns], scores[rows, columns]
    weights = ours.scores[rows] + theirs.scores[columns]
    is_matched = (edges <= tolerance_px) & (scores <= limits.score)
    sure = [one.scores >= SURE for one in (ours, theirs)]
    paired = [one[places] for one, places in zip(sure, (rows, columns), strict=True)]
    lost, new = (int(a.sum() - b.sum()) for a, b in zip(sure, paired, strict=True))
    return ComparedImage(
        matched=float(weights[is_matched].sum()),
        total=float(ours.scores.sum() + theirs.scores.sum()),
        edges_px=edges,
        shifts=edges / longer_side,
        scores=scores,
        is_sure=paired[0] | paired[1],
        sure=int(sure[0].sum()),
        lost=lost,
        new=new,
    )


def warn_if_unsure(agreement: Agreement) -> None:
    """Say what was compared where PyTorch detects nothing: random weights, or odd images."""
    if agreement.passes and not agreement.detections:
        warn(
            f"no detection reaches a score of {SURE} on these {agreement.pictures} images, so "
            f"{agreement.answers} raw answers were compared: the arithmetic is right, but nothing "
            "is known of detections; give trained weights or data= with your own images"
        )


def _sum_up(
    compared: list[ComparedImage],
    answers: int,
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
        pictures=len(compared),
        detections=detections,
        answers=answers,
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


def _ap(pictures: Images, num_classes: int, found: list[Detections]) -> float | None:
    """AP of 1; None without labels, or with labels of other classes."""
    truth = pictures.truth
    if truth is None or len(truth.names) != num_classes:
        return None
    evaluator = CocoEvaluator(truth.ground_truth(), truth.category_ids)
    for record, detections in zip(truth.records, found, strict=True):
        finite = detections.boxes_xyxy.isfinite().all(1) & detections.scores.isfinite()
        known = (detections.labels >= 0) & (detections.labels < num_classes)
        evaluator.update(record.image_id, detections.keep(finite & known))
    return evaluator.compute().box.map
