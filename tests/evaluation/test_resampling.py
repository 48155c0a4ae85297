"""AP of weighted images against the evaluator and, with copied images, against pycocotools."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from rtdetr_cli.evaluation.resampling import METRICS, WeightedAP, nan_mean, summarize


def weighted(evaluator) -> WeightedAP:
    return WeightedAP(*evaluator.tables(), evaluator.image_ids, len(evaluator.names))


def copied(rows: list[dict[str, Any]], weights: dict[int, int]) -> list[dict[str, Any]]:
    """Every row as often as its image counts, for image ids 1000 * id + number of the copy."""
    return [
        row | {"image_id": 1000 * row["image_id"] + number}
        for row in copy.deepcopy(rows)
        for number in range(weights[row["image_id"]])
    ]


def test_equal_weights_give_the_numbers_of_the_evaluator(split):
    evaluator = split.evaluator()
    metrics = evaluator.compute()
    ones = np.ones((1, len(evaluator.image_ids)), np.int64)
    values = weighted(evaluator)(ones)

    expected = [metrics.stats[name] if metrics.stats[name] >= 0 else np.nan for name in METRICS]
    np.testing.assert_allclose(summarize(values)[0], expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(values[0, 0], metrics.box.ap_by_iou, rtol=0, atol=1e-12)


def test_an_image_of_weight_n_counts_as_n_copies_in_pycocotools(split, pycocotools_run):
    rng = np.random.default_rng(4)
    for found in split.detections.values():  # with equal scores the order of copies matters
        found.scores += 1e-4 * torch.from_numpy(rng.permutation(len(found)))
    evaluator = split.evaluator()
    draws = rng.integers(0, 4, (3, len(evaluator.image_ids)))
    values = summarize(weighted(evaluator)(draws))

    truth = split.ground_truth
    for draw, value in zip(draws, values, strict=True):
        weights = dict(zip(evaluator.image_ids.tolist(), draw.tolist(), strict=True))
        images = copied([{"image_id": image["id"]} for image in truth["images"]], weights)
        boxes = copied(truth["annotations"], weights)
        for number, box in enumerate(boxes, start=1):
            box["id"] = number
        more = {"images": [{"id": image["image_id"]} for image in images], "annotations": boxes}
        oracle = pycocotools_run(truth | more, copied(evaluator.predictions(), weights))
        expected = np.where(oracle.stats[:6] < 0, np.nan, oracle.stats[:6])
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-12)


def test_a_class_whose_images_have_weight_0_is_left_out(make_split):
    split = make_split([[10, 10, 40, 40, 0], [60, 60, 40, 40, 1]], [[10, 10, 40, 40, 0.9, 0]])
    split.ground_truth["images"].append({"id": 2})
    split.ground_truth["annotations"][1]["image_id"] = 2
    evaluator = split.evaluator()
    one, both = summarize(weighted(evaluator)(np.array([[1, 0], [1, 1]])))[:, 0]
    assert (one, both) == pytest.approx((1.0, 0.5), abs=1e-12)


def test_without_a_box_ap_is_undefined():
    assert nan_mean(np.array([[1.0, np.nan, 3.0], [np.nan] * 3])).tolist() == pytest.approx(
        [2.0, np.nan], nan_ok=True
    )
