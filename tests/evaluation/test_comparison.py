"""Paired differences, their intervals and the verdict."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rtdetr_cli.core.detections import Detections
from rtdetr_cli.evaluation.coco import CocoEvaluator
from rtdetr_cli.evaluation.comparison import (
    MAX_GROUPS,
    compare,
    draw_weights,
    estimate,
    interval,
    resampled_ap,
)

BOX = torch.tensor([[10.0, 10, 50, 50]])
NO_CLASS = torch.zeros(1, dtype=torch.int64)


def evaluator_of(
    found: list[bool], boxes: bool = True, category_ids: tuple[int, int] = (0, 1)
) -> CocoEvaluator:
    """One box of the class cat an image; a perfect detection where `found`."""
    ids = range(1, len(found) + 1)
    box = {"category_id": 0, "bbox": [10, 10, 40, 40], "iscrowd": 0}
    truth = {
        "images": [{"id": number} for number in ids],
        "annotations": [{"id": number, "image_id": number, **box} for number in ids if boxes],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
    }
    evaluator = CocoEvaluator(truth, category_ids)
    cat = NO_CLASS + category_ids.index(0)
    for number in np.flatnonzero(found) + 1:
        evaluator.update(int(number), Detections(BOX, torch.tensor([0.9]), cat))
    return evaluator


def leave_one_out(values: np.ndarray) -> np.ndarray:
    """Their mean without one of them, (N,)."""
    return (values.sum() - values) / (len(values) - 1)


def test_the_interval_of_a_mean_is_that_of_the_t_distribution():
    """The bootstrap mean is normal with sd / sqrt(n), where sd divides by n; the interval does not.

    Uniform values have no heavy tails, so that all n - 1 degrees of freedom are there.
    """
    values = np.random.default_rng(0).uniform(size=30)
    draws = np.random.default_rng(1).normal(values.mean(), values.std() / 30**0.5, 400_000)
    half = 2.045 * values.std(ddof=1) / 30**0.5  # t table, 29 degrees of freedom
    assert interval(values.mean(), leave_one_out(values), draws) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.002
    )


def test_few_images_that_matter_are_few_degrees_of_freedom():
    """4 of 200 images have the class: 2 * 4 degrees (Satterthwaite), t 2.31 instead of 1.97."""
    values = np.repeat([1.0, 0.0], [4, 196])
    draws = np.random.default_rng(1).normal(0.02, values.std() / 200**0.5, 400_000)
    low, high = interval(0.02, leave_one_out(values), draws)
    half = 2.29 * values.std(ddof=1) / 200**0.5  # t table between 8 (2.306) and 9 (2.262) degrees
    assert (low, high) == pytest.approx((0.02 - half, 0.02 + half), abs=0.002)


def test_a_class_in_one_image_has_no_interval():
    a, b = evaluator_of([False] * 30, boxes=False), evaluator_of([True] * 30, boxes=False)
    for one in (a, b):
        one._ground_truth["annotations"] = [
            {"id": 1, "image_id": 1, "category_id": 0, "bbox": [10, 10, 40, 40], "iscrowd": 0}
            | {"area": 1600}
        ]
    cat = compare(a, b, 50, 0).per_class[0]
    assert cat.difference > 0.9
    assert np.isnan([cat.low, cat.high]).all()
    assert not cat.is_shown


def test_every_image_is_left_out_once_and_the_resamples_have_as_many():
    for count, num_groups in ((7, 7), (500, 40), (1, 1)):
        weights = np.concatenate([*draw_weights(count, 30, np.random.default_rng(0))])
        assert (weights[0] == 1).all()
        left_out = weights[1 : 1 + num_groups]
        assert (left_out.sum(axis=0) == num_groups - 1).all()
        assert left_out.sum(axis=1).max() - left_out.sum(axis=1).min() <= 1
        assert (weights[1 + num_groups :].sum(axis=1) == count).all()
        assert len(weights) == 31 + num_groups


def test_a_detector_that_misses_a_third_of_the_boxes_is_worse():
    a = evaluator_of([number % 3 > 0 for number in range(60)])
    b = evaluator_of([True] * 60)
    result = compare(a, b, 500, seed=0)
    ap = result.metrics[0]
    # Recall 2/3 reaches 67 of COCO's 101 recall steps.
    assert (ap.a, ap.b) == pytest.approx((67 / 101, 1.0), abs=1e-12)
    # A proportion of 1/3 of 60: standard error sqrt(1/3 * 2/3 / 60) = 0.061, t quantile 2.0.
    assert (ap.low, ap.high) == pytest.approx((1 / 3 - 0.122, 1 / 3 + 0.122), abs=0.03)
    verdict = result.verdict("a.pt", "b.pt")
    assert verdict.startswith("b.pt is better than a.pt by 33.7 AP, 95 % ")
    assert compare(b, a, 500, 0).verdict("a.pt", "b.pt") == (
        verdict.replace("b.pt is better than a.pt", "a.pt is better than b.pt")
    )
    dog = result.per_class[1]
    assert (dog.name, dog.is_shown) == ("dog", False)
    assert np.isnan([dog.a, dog.b, dog.difference, dog.low, dog.high]).all()


def test_classes_are_paired_by_name():
    """A detector with the classes in another order: dog, cat."""
    a, turned = evaluator_of([True] * 3), evaluator_of([True] * 3, category_ids=(1, 0))
    cat, dog = compare(a, turned, 10, 0).per_class
    assert (cat.name, cat.a, cat.difference) == ("cat", pytest.approx(1), 0)
    assert (dog.name, np.isnan(dog.difference)) == ("dog", True)


def test_images_that_differ_come_with_f1_and_errors_of_both():
    a, b = evaluator_of([True, False, True]), evaluator_of([True, True, False])
    boxes = torch.cat([BOX, BOX + 200])
    b.update(2, Detections(boxes, torch.tensor([0.9, 0.95]), torch.zeros(2, dtype=torch.int64)))
    images = compare(a, b, 10, 0).images
    rows = [(one.image_id, one.f1_a, one.f1_b, one.errors_a, one.errors_b) for one in images]
    assert rows == [(3, 1.0, 0.0, 0, 1), (2, 0.0, pytest.approx(2 / 3), 1, 1)]


def test_a_detector_against_itself_shows_no_difference(split):
    evaluator = split.evaluator()
    result = compare(evaluator, evaluator, 50, 0)
    assert {(one.difference, one.low, one.high) for one in result.metrics[:3]} == {(0, 0, 0)}
    assert result.images == []
    assert "6 images are too few" in result.verdict("a", "b")
    alike = evaluator_of([number % 2 == 0 for number in range(30)])
    assert compare(alike, alike, 50, 0).verdict("a", "b") == (
        "no difference can be shown: a and b score the same on every resample"
    )


def test_a_small_difference_is_not_shown_and_the_verdict_says_what_would_be():
    a = evaluator_of([number % 2 > 0 for number in range(40)])
    b = evaluator_of([number % 2 == 0 or number == 1 for number in range(40)])
    verdict = compare(a, b, 500, 0).verdict("a", "b")
    assert verdict.startswith("no difference can be shown: b - a is ")
    assert "with 40 images only a difference of about 3" in verdict


def test_without_boxes_there_is_no_verdict():
    nothing = evaluator_of([False] * 30, boxes=False)
    result = compare(nothing, nothing, 5, 0)
    assert "has no boxes" in result.verdict("a", "b")


def test_the_seed_decides_the_interval():
    a, b = evaluator_of([n % 3 > 0 for n in range(30)]), evaluator_of([True] * 30)
    first, again, other = (compare(a, b, 40, seed).metrics[0] for seed in (1, 1, 2))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)


@pytest.mark.slow
def test_the_interval_covers_the_true_difference_in_95_of_100_trials():
    """Simulated detectors; 200 trials have a standard error of 1.5 %."""
    path = Path(__file__).parents[1] / "benchmarks" / "interval_coverage.py"
    more = ["--images", "50", "--trials", "200", "--resamples", "200", "--scenarios", "two models"]
    words = [sys.executable, str(path), *more]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    shares = [float(cell) for cell in printed.splitlines()[-1].split("|")[3:6]]
    assert min(shares) > 91
    assert max(shares) < 99


def test_resampled_ap_has_the_draws_of_compare():
    """The same seed draws the same images for each detector, in `compare` and alone."""
    a = evaluator_of([number % 3 > 0 for number in range(60)])
    b = evaluator_of([True] * 60)
    drawn_a, drawn_b = (resampled_ap(one, 300, seed=5) for one in (a, b))
    assert drawn_a.shape == (1 + MAX_GROUPS + 300,)
    assert drawn_a[0] == pytest.approx(a.compute().stats["AP"], abs=1e-12)
    found = compare(a, b, 300, seed=5).metrics[0]
    change = estimate(drawn_b - drawn_a, 300)
    assert change == (found.difference, found.low, found.high)
    assert np.isnan(resampled_ap(evaluator_of([False] * 9, boxes=False), 100, seed=0)).all()
