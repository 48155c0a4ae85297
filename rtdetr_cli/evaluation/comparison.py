"""Which of two detectors is better: differences of AP with bootstrap intervals over images.

Images are drawn with replacement, the same for both detectors ("paired"), so that images which are
hard for both do not widen the interval. resampling.py computes AP; engine/compare.py prints.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit

from rtdetr_cli.evaluation.coco import CocoEvaluator
from rtdetr_cli.evaluation.image_scores import score_images
from rtdetr_cli.evaluation.matching import Floats, Ints
from rtdetr_cli.evaluation.metrics import Difference
from rtdetr_cli.evaluation.resampling import AREAS, METRICS, WeightedAP, nan_mean, summarize

CONFIDENCE = 0.95
"""Probability that an interval covers the true difference."""
FEW_IMAGES = 20
"""Below this number an interval from resampled images is too narrow to be trusted."""
MAX_GROUPS = 40
"""Groups of images to leave out. With 100 groups of one image the intervals of AP50 were too wide
(97.6 % coverage): the 101 levels of recall turn a small change of AP into none or a larger one."""
MIN_DEGREES = 3
"""Fewer degrees of freedom need quantiles beyond the last of 1,000 resamples."""
_CHUNK = 2**24
"""Cells of weights at a time, 64 MB."""


@dataclass(frozen=True)
class ImageDifference:
    """One image, each detector at its confidence with the best mean F1, IoU 0.5.

    Attributes:
        image_id: of the ground truth.
        f1_a: F1 of the first detector; 1 in an image without boxes and detections.
        f1_b: F1 of the second.
        errors_a: missed boxes and false detections of the first.
        errors_b: of the second.
    """

    image_id: int
    f1_a: float
    f1_b: float
    errors_a: int
    errors_b: int


@dataclass(frozen=True)
class Comparison:
    """Result of `rtdetr compare`; differences are b - a.

    Attributes:
        metrics: AP, AP50, AP75, APs, APm and APl.
        per_class: AP of every class.
        images: those that differ, largest difference of F1 first.
        num_images: images in the split.
        resamples: number of bootstrap resamples.
    """

    metrics: list[Difference]
    per_class: list[Difference]
    images: list[ImageDifference]
    num_images: int
    resamples: int

    def verdict(self, a: str, b: str) -> str:
        """Say in words which detector is better.

        Args:
            a: name of the first detector.
            b: name of the second.
        """
        ap = self.metrics[0]
        if math.isnan(ap.difference):
            return "no difference can be shown: the split has no boxes, so AP is not defined"
        interval = f"95 % {_points(ap.low)} to {_points(ap.high)}"
        if self.num_images < FEW_IMAGES:
            return (
                f"no difference can be shown: {self.num_images} images are too few, at least "
                f"{FEW_IMAGES} are needed ({b} - {a}: {_points(ap.difference)} AP)"
            )
        if ap.is_shown:
            better, worse = (b, a) if ap.difference > 0 else (a, b)
            low, high = sorted((abs(ap.low), abs(ap.high)))
            gain = f"{_points(abs(ap.difference))} AP, 95 % {_points(low)} to {_points(high)}"
            return f"{better} is better than {worse} by {gain}"
        if ap.low == ap.high == 0:
            return f"no difference can be shown: {a} and {b} score the same on every resample"
        return (
            f"no difference can be shown: {b} - {a} is {_points(ap.difference)} AP, {interval}; "
            f"with {self.num_images} images only a difference of about "
            f"{_points((ap.high - ap.low) / 2)} AP or more would show"
        )


def _points(value: float) -> str:
    """AP in points, 0 to 100."""
    return f"{100 * value:.1f}"


def compare(a: CocoEvaluator, b: CocoEvaluator, resamples: int, seed: int) -> Comparison:
    """Compare the detections of two detectors on the same split.

    Args:
        a: with the detections of the first detector.
        b: with those of the second, for the same ground truth.
        resamples: number of bootstrap resamples.
        seed: of the resamples.
    """
    values_a, values_b = _resampled([a, b], resamples, seed)
    places = {name: place for place, name in b.names.items()}  # b may number them in another order
    classes = {name: place for place, name in a.names.items() if name in places}
    ap_a = nan_mean(values_a[:, 0, [*classes.values()]])
    ap_b = nan_mean(values_b[:, 0, [places[name] for name in classes]])
    return Comparison(
        metrics=_differences(METRICS, summarize(values_a), summarize(values_b), resamples),
        per_class=_differences([*classes], ap_a, ap_b, resamples),
        images=_by_image(a, b),
        num_images=len(a.image_ids),
        resamples=resamples,
    )


def _resampled(evaluators: list[CocoEvaluator], resamples: int, seed: int) -> list[Floats]:
    """(1 + G + R, A, K, T) AP of each detector for the weights of `draw_weights`."""
    ids = evaluators[0].image_ids
    detectors = [WeightedAP(*one.tables(), ids, len(one.names)) for one in evaluators]
    values: list[list[Floats]] = [[] for _ in detectors]
    for weights in draw_weights(len(ids), resamples, np.random.default_rng(seed)):
        for one, parts in zip(detectors, values, strict=True):
            parts.append(one(weights))
    return [np.concatenate(parts) for parts in values]


def resampled_ap(evaluator: CocoEvaluator, resamples: int, seed: int) -> Floats:
    """AP of the split itself, without each group of images, and of each resample.

    The same seed draws the same images, so that two detectors can be compared draw by draw. nan
    where no box counts.

    Returns:
        (1 + G + R,), for `estimate`.
    """
    ids, num_classes = evaluator.image_ids, len(evaluator.names)
    detector = WeightedAP(*evaluator.tables(), ids, num_classes, AREAS[:1])
    drawn = draw_weights(len(ids), resamples, np.random.default_rng(seed))
    values = np.concatenate([detector(weights) for weights in drawn])
    return nan_mean(values.reshape(len(values), -1))


def draw_weights(count: int, resamples: int, rng: np.random.Generator) -> Iterator[Ints]:
    """Yield how often each of I images counts, (some, I) at a time.

    First once each; then without one of G groups of images, each image in one of them; then in R
    bootstrap resamples.
    """
    yield np.ones((1, count), np.int64)
    step = max(1, min(200, _CHUNK // max(count, 1)))
    num_groups = min(count, MAX_GROUPS)
    group_of = rng.permutation(count) % max(num_groups, 1)
    for start in range(0, num_groups, step):
        left_out = np.arange(start, min(start + step, num_groups))
        yield (group_of != left_out[:, None]).astype(np.int64)
    for start in range(0, resamples, step):
        shares = np.full(count, 1 / max(count, 1))
        yield rng.multinomial(count, shares, min(step, resamples - start))


def _differences(names: Sequence[str], a: Floats, b: Floats, resamples: int) -> list[Difference]:
    """One entry per column of the (1 + G + R, N) values."""
    rows = []
    for name, mine, theirs in zip(names, a.T, b.T, strict=True):
        change = estimate(theirs - mine, resamples)
        rows.append(Difference(name, float(mine[0]), float(theirs[0]), *change))
    return rows


def estimate(values: Floats, resamples: int) -> tuple[float, float, float]:
    """The first of (1 + G + R,) values, which is that of all images, and its interval."""
    value, others = float(values[0]), values[1:]
    num_groups = len(others) - resamples
    return value, *interval(value, others[:num_groups], others[num_groups:])


def interval(value: float, left_out: Floats, drawn: Floats) -> tuple[float, float]:
    """The percentile interval of a statistic, stretched to the standard error of the jackknife.

    A resample holds some images twice, and two equal images say less about AP than two different
    ones, so that resamples vary too little; leaving out images does not have this fault. But AP
    moves in steps, which few images left out may not show, so that the interval is never narrower
    than the resamples. The quantile is that of the t distribution, whose degrees of freedom follow
    from how evenly the images contribute (Satterthwaite): a class in few images has few.

    Args:
        value: of all images.
        left_out: (G,) without one group of images (Efron and Tibshirani 1993, chapter 11).
        drawn: (R,) of bootstrap resamples.

    Returns:
        Its ends; nan if the statistic is not defined, or only with one of the groups.
    """
    drawn, groups = drawn[~np.isnan(drawn)], len(left_out)
    if math.isnan(value) or np.isnan(left_out).any() or groups < 2 or not len(drawn):
        return math.nan, math.nan
    squares = (left_out - left_out.mean()) ** 2
    spread, correction = float(drawn.std()), groups / (groups - 1)
    if not squares.any() or not spread:
        return value, value
    stretch = max(math.sqrt(squares.sum() / correction) / spread, math.sqrt(correction))
    kurtosis = groups * (squares**2).sum() / squares.sum() ** 2
    degrees = min(max(2 * groups / max(kurtosis - 1, 1e-9), MIN_DEGREES), groups - 1)
    tail = float(ndtr(stdtrit(degrees, (1 - CONFIDENCE) / 2)))
    low, high = value + stretch * (np.quantile(drawn, [tail, 1 - tail]) - value)
    return float(low), float(high)


def _by_image(a: CocoEvaluator, b: CocoEvaluator) -> list[ImageDifference]:
    """The images whose numbers differ."""
    of_a, of_b = score_images(a), score_images(b)
    f1_a, f1_b, errors_a, errors_b = of_a.f1, of_b.f1, of_a.errors, of_b.errors
    gap = np.abs(f1_a - f1_b)
    order = np.lexsort((-np.abs(errors_a - errors_b), -gap))
    differs = (gap > 0) | (errors_a != errors_b)
    table = zip(a.image_ids.tolist(), f1_a.tolist(), f1_b.tolist(), errors_a, errors_b, strict=True)
    rows = [
        ImageDifference(image, mine, theirs, int(wrong_a), int(wrong_b))
        for image, mine, theirs, wrong_a, wrong_b in table
    ]
    return [rows[place] for place in order[differs[order]].tolist()]
