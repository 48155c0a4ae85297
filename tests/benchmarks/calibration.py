"""What `rtdetr val calibrate=true` on one split is worth on another.

Usage: python tests/benchmarks/calibration.py WEIGHTS DATA   (.pt of any family; val and test)

Prints D-ECE on test with the scores of the network, after a temperature alone and after the stored
calibration; F1 on test at conf=0.25, at the best threshold of all classes on val, and at conf=auto;
and the time that reliability and fit take.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy.optimize import minimize_scalar

from rtdetr_cli import RTDETR
from rtdetr_cli.evaluation.calibration import Reliability, Scaling, fit_scaling
from rtdetr_cli.evaluation.matching import CONFIDENCES, Curves
from rtdetr_cli.evaluation.metrics import Metrics
from rtdetr_cli.weights.checkpoint import load_checkpoint

SHOWN = 0.25
"""A second D-ECE is that of the detections which `predict` shows by default."""


def temperature_alone(given: Reliability) -> Scaling:
    """The temperature with the highest likelihood, without an offset."""

    def loss(log_temperature: float) -> float:
        chance = Scaling(float(np.exp(log_temperature)), 0.0).apply(given.scores)
        chance = np.clip(chance, 1e-12, 1 - 1e-12)
        return -float(np.log(np.where(given.hits, chance, 1 - chance)).mean())

    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded")
    return Scaling(float(np.exp(best.x)), 0.0)


def errors(given: Reliability, scaling: Scaling | None) -> tuple[float, float]:
    """D-ECE of all detections that count, and of those with a score of the network over SHOWN."""
    scores = scaling.apply(given.scores) if scaling else given.scores
    shown = given.scores > SHOWN
    part = Reliability(scores[shown], given.hits[shown], given.images[shown])
    return given.with_scores(scores).ece, part.ece


def f1_at(curves: Curves, thresholds: np.ndarray) -> tuple[float, float]:
    """Mean F1 of the classes, and F1 of all detections together."""
    columns = np.round(thresholds * (len(CONFIDENCES) - 1)).astype(int)
    rows = np.arange(len(columns))
    precision, recall = curves.precision[rows, columns], curves.recall[rows, columns]
    hits = recall * curves.instances
    kept = np.divide(hits, precision, out=np.zeros_like(hits), where=precision > 0).sum()
    return (
        float(np.mean(curves.f1[rows, columns])),
        float(2 * hits.sum() / (kept + curves.instances.sum())),
    )


def line(name: str, *values: float) -> None:
    """One row of a table."""
    sys.stdout.write(f"{name:<40}" + "".join(f"{value:9.4f}" for value in values) + "\n")


def main(weights: str, data: str) -> None:
    """Calibrate a copy on val, measure on test."""
    with TemporaryDirectory() as folder:
        path = RTDETR(weights).save(Path(folder) / "copy.pt")
        quiet = {"data": data, "plots": False, "device": "cpu"}
        val: Metrics = RTDETR(path).val(**quiet, calibrate=True)
        test: Metrics = RTDETR(path).val(**quiet, split="test")
        stored = load_checkpoint(path).calibration
    assert stored
    sys.stdout.write(f"\n{stored.describe()}\n{'D-ECE on test':<40}  >= 0.05   > 0.25\n")
    given = val.calibration
    fits = {
        "scores of the network": None,
        "temperature alone": temperature_alone(given),
        "temperature and offset (stored)": Scaling(stored.temperature, stored.offset),
    }
    for name, scaling in fits.items():
        line(name, *errors(test.calibration, scaling))
    curves, best = test.box.by_confidence, val.box.by_confidence.best_confidence
    sys.stdout.write(f"{'F1 on test':<40}     mean      all\n")
    count = len(stored.thresholds)
    line("conf=0.25", *f1_at(curves, np.full(count, SHOWN)))
    line(f"conf={best:.3f}, best of all classes on val", *f1_at(curves, np.full(count, best)))
    line("conf=auto, stored", *f1_at(curves, np.array(stored.thresholds)))
    start = time.perf_counter()
    _ = given.bins
    fit_scaling(given.scores, given.hits)
    sys.stdout.write(f"{len(given.scores)} detections: {time.perf_counter() - start:.3f} s\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
