"""How often the 95 % interval of `rtdetr compare` covers the true difference, on simulated data.

    python tests/benchmarks/interval_coverage.py [--images 20 50 100] [--trials 500]

Two detectors see the same images, whose hardness they share. The true difference is that of
60,000 images. With 500 trials a share has a standard error of 1 %.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from rtdetr_cli.evaluation import resampling
from rtdetr_cli.evaluation.comparison import draw_weights, estimate
from rtdetr_cli.evaluation.matching import Found, Truth

METRICS = ("AP", "AP50", "AP75")
MANY, TIMES = 30_000, 2


@dataclass(frozen=True)
class Scenario:
    """What is simulated.

    Attributes:
        skills: of the two detectors.
        shared: share of the variance of their errors that is the same for both.
        spread: of the logarithm of the number of boxes in an image.
        classes: share of the boxes of each class.
    """

    skills: tuple[float, float] = (0.0, 0.3)
    shared: float = 0.0
    spread: float = 0.0
    classes: tuple[float, ...] = (0.5, 0.5)


SCENARIOS = {
    "two models": Scenario(),
    "almost the same model": Scenario(skills=(0.0, 0.1), shared=0.9),
    "crowded and empty images": Scenario(spread=1.0),
    "a class of 5 % of the boxes": Scenario(classes=(0.95, 0.05)),
}


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[20, 50, 100])
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--resamples", type=int, default=400)
    parser.add_argument("--scenarios", nargs="+", default=[*SCENARIOS], choices=[*SCENARIOS])
    options = parser.parse_args()
    sys.stdout.write(f"| scenario | images | {' | '.join(METRICS)} |\n|---|---|---|---|---|\n")
    for name in options.scenarios:
        for count in options.images:
            shares = coverage(SCENARIOS[name], count, options.trials, options.resamples)
            cells = " | ".join(f"{100 * share:.1f}" for share in shares)
            sys.stdout.write(f"| {name} | {count} | {cells} |\n")
            sys.stdout.flush()


def coverage(scenario: Scenario, count: int, trials: int, resamples: int) -> np.ndarray:
    """(3,) share of the trials whose interval covers the true difference, for METRICS."""
    rng, true = np.random.default_rng(count), true_difference(scenario)
    covered = np.zeros(len(METRICS))
    for _ in range(trials):
        values = differences(scenario, rng, count, draw_weights(count, resamples, rng))
        for place, column in enumerate(values.T):
            _, low, high = estimate(column, resamples)
            covered[place] += low <= true[place] <= high
    return covered / trials


@cache
def true_difference(scenario: Scenario) -> np.ndarray:
    """(3,) METRICS of the second detector minus those of the first, on many images."""
    rng, once = np.random.default_rng(0), np.ones((1, MANY), np.int64)
    return np.mean([differences(scenario, rng, MANY, [once]) for _ in range(TIMES)], axis=(0, 1))


def differences(
    scenario: Scenario, rng: np.random.Generator, count: int, weights: Iterable[np.ndarray]
) -> np.ndarray:
    """(R, 3) differences of the two detectors on simulated images, for (some, I) weights."""
    truth, found = simulate(scenario, rng, count)
    more = np.arange(count), len(scenario.classes), resampling.AREAS[:1]  # sizes play no part
    models = [resampling.WeightedAP(one, truth, *more) for one in found]
    rows = []
    for some in weights:
        a, b = (resampling.summarize(with_areas(one(some)))[:, :3] for one in models)
        rows.append(b - a)
    return np.concatenate(rows)


def with_areas(values: np.ndarray) -> np.ndarray:
    """(R, 4, K, T) from the (R, 1, K, T) of all sizes together."""
    return np.repeat(values, 4, axis=1)


def simulate(scenario: Scenario, rng: np.random.Generator, count: int) -> tuple[Truth, list[Found]]:
    """Images with boxes in separate places, on average five, and what each detector finds."""
    boxes_of = 1 + rng.poisson(4 * np.exp(rng.normal(0, scenario.spread, count)).clip(0, 10))
    images = np.repeat(np.arange(count), boxes_of)
    classes = rng.choice(len(scenario.classes), len(images), p=scenario.classes)
    slots = np.arange(len(images)) - np.repeat(np.cumsum(boxes_of) - boxes_of, boxes_of)
    sides = rng.choice([20.0, 60.0, 120.0], len(images))
    boxes = np.stack([slots * 200.0, 0 * sides, sides, sides], axis=1)
    truth = Truth(images, classes, boxes, np.zeros(len(images), np.bool_), sides**2)
    hardness = rng.normal(0, 0.5, count)[images]
    common = rng.normal(size=(3, len(images)))
    found = []
    for skill in scenario.skills:
        own = np.sqrt(1 - scenario.shared) * rng.normal(size=common.shape)
        errors = own + np.sqrt(scenario.shared) * common
        false = false_detections(rng, scenario, count, skill)
        found.append(detect(truth, skill - hardness, errors, false))
    return truth, found


def detect(truth: Truth, easy: np.ndarray, errors: np.ndarray, false: Found) -> Found:
    """Boxes shifted and missed more in hard images and by weak detectors, and false detections."""
    moved, missed, doubt = errors
    seen = missed < 2 + easy
    boxes = truth.boxes_xywh.copy()
    boxes[:, 0] += 0.12 * np.abs(moved) * np.exp(-easy) * boxes[:, 2]
    images = np.concatenate([truth.images[seen], false.images])
    order = np.argsort(images, kind="stable")
    return Found(
        images,
        np.concatenate([truth.classes[seen], false.classes]),
        np.concatenate([boxes[seen], false.boxes_xywh]),
        np.concatenate([sigmoid(1 + easy + doubt)[seen], false.scores]),
    ).keep(order)


def false_detections(
    rng: np.random.Generator, scenario: Scenario, count: int, skill: float
) -> Found:
    """About four an image, far from the boxes, with low scores."""
    images = np.repeat(np.arange(count), rng.poisson(4 * np.exp(-skill), count))
    number = len(images)
    boxes = np.full((number, 4), 40.0)
    boxes[:, 0] = 100_000 + 200.0 * (np.arange(number) % 50)
    classes = rng.choice(len(scenario.classes), number, p=scenario.classes)
    return Found(images, classes, boxes, sigmoid(rng.normal(-1, 1, number)))


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Logistic function."""
    return 1 / (1 + np.exp(-values))


if __name__ == "__main__":
    main()
