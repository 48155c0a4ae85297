"""Reliability, the fit of scores to precision, and thresholds per class."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rtdetr_cli.evaluation.calibration import (
    Reliability,
    Scaling,
    class_thresholds,
    cross_fitted,
    fit_scaling,
    reliability,
)
from rtdetr_cli.evaluation.matching import CONFIDENCES, Curves, Found, Truth, match


def some(scores: list[float], hits: list[int]) -> Reliability:
    return Reliability(np.array(scores), np.array(hits, bool), np.arange(len(scores)))


def simulated(count: int, temperature: float, offset: float) -> Reliability:
    """Scores s for which sigmoid(logit(s) / temperature + offset) is the probability of a hit."""
    rng = np.random.default_rng(5)
    scores = 1 / (1 + np.exp(-rng.normal(0, 2, count)))
    odds = np.log(scores / (1 - scores)) / temperature + offset
    hits = rng.random(count) < 1 / (1 + np.exp(-odds))
    return Reliability(scores, hits, rng.integers(0, count // 10, count))


def test_ece_equals_the_sum_by_hand():
    """Bins [0.1, 0.15): scores 0.10 and 0.14, one hit; [0.9, 0.95): 0.9, no hit; [0.95, 1]: 1.0.

    (2 |0.5 - 0.12| + 1 |0 - 0.9| + 1 |1 - 1|) / 4 = (0.76 + 0.9) / 4 = 0.415.
    """
    given = some([0.10, 0.14, 0.9, 1.0], [1, 0, 0, 1])
    assert [one.detections for one in given.bins] == [2, 1, 1]
    assert given.bins[0] == pytest.approx((0.1, 0.15, 2, 0.12, 0.5))
    assert given.ece == pytest.approx(0.415)


def test_scores_that_equal_the_precision_have_no_error():
    assert some([0.25] * 4 + [0.75] * 4, [1, 0, 0, 0, 1, 1, 1, 0]).ece == pytest.approx(0)


def test_without_detections_ece_is_undefined():
    assert math.isnan(some([], []).ece)
    assert some([], []).bins == []


def test_detections_on_crowds_of_absent_classes_and_below_the_least_score_do_not_count():
    boxes = np.array([[0.0, 0, 10, 10], [50, 0, 20, 20]])
    truth = Truth(
        np.zeros(2, int), np.zeros(2, int), boxes, np.array([False, True]), np.array([100.0, 400])
    )
    #        hit, again the same box, inside the crowd, a class without boxes, a low score
    places = np.array(
        [[0.0, 0, 10, 10], [0, 0, 10, 9], [52, 0, 9, 9], [0, 0, 10, 10], [90, 0, 9, 9]]
    )
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.04])
    found = Found(np.zeros(5, int), np.array([0, 0, 0, 1, 0]), places, scores)
    given = reliability(found, truth, match(found, truth))
    assert given.scores.tolist() == [0.9, 0.8]
    assert given.hits.tolist() == [True, False]


@pytest.mark.parametrize(("temperature", "offset"), [(2.5, 0.0), (0.4, -0.7)])
def test_the_fit_recovers_a_known_scaling(temperature, offset):
    given = simulated(20_000, temperature, offset)
    found = fit_scaling(given.scores, given.hits)
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.offset == pytest.approx(offset, abs=0.05)
    assert given.with_scores(found.apply(given.scores)).ece < 0.02 < given.ece


def test_scaling_by_hand():
    """logit(0.8) = ln 4; halved and shifted by ln 3 the odds are 2 * 3, the probability 6 / 7."""
    assert Scaling(2.0, math.log(3)).apply(np.array([0.8])) == pytest.approx([6 / 7])


def test_scaling_keeps_the_order_and_is_finite_at_0_and_1():
    scores = np.linspace(0, 1, 101)
    scaled = Scaling(0.3, -1.0).apply(scores)
    assert (np.diff(scaled) > 0).all()
    assert np.isfinite(scaled).all()


def test_separable_scores_give_a_finite_scaling():
    found = fit_scaling(np.array([0.2] * 20 + [0.9] * 20), np.repeat([False, True], 20))
    assert 0.05 <= found.temperature <= 20
    assert found.apply(np.array([0.2, 0.9])) == pytest.approx([1 / 22, 21 / 22], abs=1e-3)


def test_cross_fitting_scores_each_image_by_the_others():
    """Hits drawn without regard to the score: a fit on the same images would hide the noise."""
    given = simulated(2000, 2.5, 0.0)
    fitted = cross_fitted(given)
    same = given.with_scores(fit_scaling(given.scores, given.hits).apply(given.scores))
    assert same.ece < fitted.ece < given.ece
    ids = np.unique(given.images)
    half = np.isin(given.images, np.random.default_rng(0).permutation(ids)[: len(ids) // 2])
    other = fit_scaling(given.scores[~half], given.hits[~half])
    np.testing.assert_array_equal(fitted.scores[half], other.apply(given.scores[half]))


def test_cross_fitting_needs_hits_and_misses_in_both_halves():
    with pytest.raises(ValueError, match="half"):
        cross_fitted(some([0.5, 0.6, 0.7], [1, 1, 1]))


def curves_of(f1_ranges: list[tuple[float, float]], instances: list[int]) -> Curves:
    """Precision and recall are 1 within a range of confidences and 0.5 outside."""
    inside = [(low <= CONFIDENCES) & (high >= CONFIDENCES) for low, high in f1_ranges]
    values = np.where(np.array(inside), 1.0, 0.5)
    return Curves(values, values, np.array(instances), np.array(instances))


def test_thresholds_are_in_the_middle_of_the_best_range():
    curves = curves_of([(0.2, 0.4), (0.5, 0.9)], [30, 30])
    assert class_thresholds(curves) == pytest.approx([0.3, 0.7])


def test_a_class_with_few_boxes_gets_the_threshold_of_all():
    """Both ranges overlap in 0.3 to 0.4, where the mean F1 is best."""
    curves = curves_of([(0.2, 0.4), (0.3, 0.9)], [30, 9])
    assert class_thresholds(curves) == pytest.approx([0.3, 0.35])


def test_validation_reports_the_error(make_split):
    """One hit with score 0.9 and one miss with 0.6: (0.1 + 0.6) / 2."""
    split = make_split([[10, 10, 40, 40, 0]], [[10, 10, 40, 40, 0.9, 0], [80, 80, 9, 9, 0.6, 0]])
    metrics = split.evaluator().compute()
    assert metrics.calibration.ece == pytest.approx(0.35)
    assert metrics.value("ECE") == metrics.to_dict()["calibration"]["ece"]
