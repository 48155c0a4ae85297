"""Whether scores can be read as probabilities, and how to change them so that they can.

A score is reliable if, of all detections with a score of 0.8, 80 % match a box at IoU 0.5. coco.py
builds Reliability from the matches of matching.py; report.py draws it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtdetr_cli.evaluation.matching import CONFIDENCES, Curves, Found, Truth, excused

MIN_SCORE = 0.05
"""Lower scores do not count: hundreds in an image would hide those that a user sees."""
NUM_BINS = 20
"""Of equal width in 0..1."""
MIN_BOXES = 10
"""A class with fewer boxes gets the threshold of all classes together."""
_SLOPES, _OFFSETS = (0.05, 20.0), (-20.0, 20.0)
"""Limits of the fit. A slope above 0 keeps the order of the scores, and thus AP."""
_EDGE = 1e-6
"""Scores are clipped to [_EDGE, 1 - _EDGE], so that their logits are finite."""

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Scaling(NamedTuple):
    """Platt scaling: the logit of a score is divided by a temperature, then shifted.

    Temperature alone (Guo et al. 2017, arXiv 1706.04599) cannot say that scores are too high
    everywhere; Kuzucu et al. 2024 (arXiv 2405.20459) recommend both for detectors.
    """

    temperature: float
    offset: float

    def apply(self, scores: Floats) -> Floats:
        """The probability that a detection matches a box, for scores in 0..1."""
        return _sigmoid(_logit(scores) / self.temperature + self.offset)


class Bin(NamedTuple):
    """The detections with scores in a range.

    Attributes:
        low: lower end of the range.
        high: upper end.
        detections: number.
        score: mean score.
        precision: share that matches a box.
    """

    low: float
    high: float
    detections: int
    score: float
    precision: float


@dataclass(frozen=True)
class Reliability:
    """Scores of detections and whether they match a box.

    Detections below MIN_SCORE, on crowds, or of classes without a box in the split are left out.

    Attributes:
        scores: (N,) in 0..1.
        hits: (N,) whether each matches a box at IoU 0.5; a box is matched once.
        images: (N,) image ids.
    """

    scores: Floats
    hits: Bools
    images: Ints

    @cached_property
    def bins(self) -> list[Bin]:
        """The bins that hold detections, by rising score."""
        edges = np.linspace(0, 1, NUM_BINS + 1)
        index = np.clip(np.searchsorted(edges, self.scores, side="right") - 1, 0, NUM_BINS - 1)
        counts, score, precision = (
            np.bincount(index, weights, NUM_BINS)
            for weights in (None, self.scores, self.hits.astype(np.float64))
        )
        return [
            Bin(low, high, int(count), total / count, hits / count)
            for low, high, count, total, hits in zip(
                edges[:-1].tolist(), edges[1:].tolist(), counts, score, precision, strict=True
            )
            if count
        ]

    @property
    def ece(self) -> float:
        """Detection expected calibration error; nan without detections.

        Mean of |precision - mean score| of the bins, weighted by their detections (Kuppers et al.
        2020, arXiv 2004.13546, with the confidence as the only dimension).
        """
        gaps = [one.detections * abs(one.precision - one.score) for one in self.bins]
        return sum(gaps) / len(self.scores) if gaps else math.nan

    def with_scores(self, scores: Floats) -> Reliability:
        """The same detections with other scores."""
        return Reliability(scores, self.hits, self.images)

    def to_dict(self) -> dict[str, Any]:
        """ECE and bins, for JSON."""
        return {"ece": self.ece, "bins": [one._asdict() for one in self.bins]}


def reliability(found: Found, truth: Truth, matches: Ints) -> Reliability:
    """Select the detections that count.

    Args:
        found: D detections.
        truth: G boxes.
        matches: (D,) from `matching.match`.
    """
    known = np.isin(found.classes, truth.classes[~truth.crowd])
    counts = known & ~excused(truth, matches) & (found.scores >= MIN_SCORE)
    return Reliability(found.scores[counts], matches[counts] >= 0, found.images[counts])


def fit_scaling(scores: Floats, hits: Bools) -> Scaling:
    """The scaling with the highest likelihood.

    Args:
        scores: (N,) in 0..1.
        hits: (N,) whether each detection matches a box; both kinds must occur.
    """
    from scipy.optimize import minimize

    logits, num_hits = _logit(scores), int(hits.sum())
    # Platt's targets, which are not 0 and 1, keep the result finite if a threshold divides hits
    # from misses (Platt 1999).
    high, low = (num_hits + 1) / (num_hits + 2), 1 / (len(hits) - num_hits + 2)
    targets = np.where(hits, high, low)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        slope, offset = parameters
        z = slope * logits + offset
        excess = _sigmoid(z) - targets
        gradient = np.array([(excess * logits).mean(), excess.mean()])
        return float((np.logaddexp(0, z) - targets * z).mean()), gradient

    best = minimize(loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=[_SLOPES, _OFFSETS])
    slope, offset = best.x.tolist()
    return Scaling(1 / slope, offset)


def cross_fitted(given: Reliability, seed: int = 0) -> Reliability:
    """Scores after a scaling that was fitted on the other half of the images.

    The ECE of the images that a scaling was fitted on is too low; this one is not.

    Raises:
        ValueError: a half has no hit or no miss, so that nothing can be fitted on it.
    """
    ids = np.unique(given.images)
    first = np.random.default_rng(seed).permutation(ids)[: len(ids) // 2]
    scores, in_first = given.scores.copy(), np.isin(given.images, first)
    for half in (in_first, ~in_first):
        if len(np.unique(given.hits[half])) < 2:
            raise ValueError("a half of the images has no hit or no miss")
        scores[~half] = fit_scaling(given.scores[half], given.hits[half]).apply(scores[~half])
    return given.with_scores(scores)


def class_thresholds(curves: Curves) -> Floats:
    """(K,) confidence with the best F1 of each class; for rare classes that of all together.

    F1 is constant between two scores; the threshold is in the middle of the best range.
    """
    together = _middle_of_best(curves.f1[curves.present].sum(axis=0))
    rare = (curves.instances < MIN_BOXES) | (np.nan_to_num(curves.f1).max(axis=1) == 0)
    pairs = zip(curves.f1, rare, strict=True)
    return np.array([together if is_rare else _middle_of_best(f1) for f1, is_rare in pairs])


def _middle_of_best(f1: Floats) -> float:
    """Middle of the first range of CONFIDENCES with the highest value."""
    first = int(f1.argmax())
    others = np.flatnonzero(f1[first:] != f1[first])
    last = first + (int(others[0]) - 1 if len(others) else len(f1) - 1 - first)
    return float((CONFIDENCES[first] + CONFIDENCES[last]) / 2)


def _logit(scores: Floats) -> Floats:
    clipped = np.clip(scores, _EDGE, 1 - _EDGE)
    logits: Floats = np.log(clipped) - np.log1p(-clipped)
    return logits


def _sigmoid(logits: Floats) -> Floats:
    probabilities: Floats = 1 / (1 + np.exp(-logits))
    return probabilities
