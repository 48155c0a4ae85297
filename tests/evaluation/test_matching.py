"""Greedy matching against pycocotools; curves and confusion against loops and by hand."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from rtdetr_cli.evaluation import matching
from rtdetr_cli.evaluation.matching import (
    CONFIDENCES,
    Found,
    Truth,
    confidence_curves,
    confusion_matrix,
    keep_best_per_class,
    match,
)


def tables(split) -> tuple[Found, Truth]:
    """Flat arrays of a Split, made the slow way."""
    boxes = split.ground_truth["annotations"]
    truth = Truth(
        images=np.array([box["image_id"] for box in boxes], dtype=np.int64),
        classes=np.array([split.category_ids.index(box["category_id"]) for box in boxes]),
        boxes_xywh=np.array([box["bbox"] for box in boxes], dtype=np.float64),
        crowd=np.array([bool(box["iscrowd"]) for box in boxes]),
        areas=np.array([box["area"] for box in boxes]),
    )
    rows = split.evaluator().predictions()
    found = Found(
        images=np.array([row["image_id"] for row in rows]),
        classes=np.array([split.category_ids.index(row["category_id"]) for row in rows]),
        boxes_xywh=np.array([row["bbox"] for row in rows]),
        scores=np.array([row["score"] for row in rows]),
    )
    return found, truth


def simple(rows: list[tuple[int, float, float]], crowd: list[int] | None = None):
    """Boxes (class, x, score) of 10 x 10 px in one image; without crowd, as detections."""
    table = np.array(rows, dtype=np.float64)
    images, classes = np.ones(len(rows), np.int64), table[:, 0].astype(np.int64)
    ones = np.ones(len(rows))
    boxes = np.stack([table[:, 1], 0 * ones, 10 * ones, 10 * ones], axis=1)
    if crowd is None:
        return Found(images, classes, boxes, table[:, 2])
    return Truth(images, classes, boxes, np.array(crowd, dtype=np.bool_), 100 * ones)


@pytest.mark.parametrize("candidates", [matching._CANDIDATES, 7])
def test_matches_are_those_of_pycocotools(split, pycocotools_run, monkeypatch, candidates):
    monkeypatch.setattr(matching, "_CANDIDATES", candidates)
    found, truth = tables(split)
    counted = keep_best_per_class(found, 100)
    matches = match(counted, truth)
    crowd = np.append(truth.crowd, False)[matches]
    oracle = pycocotools_run(split.ground_truth, split.evaluator().predictions())
    entries = [entry for entry in oracle.evalImgs if entry and entry["aRng"] == [0, 1e10]]

    assert len(counted.scores) == sum(len(entry["dtScores"]) for entry in entries)
    for entry in entries:
        index = split.category_ids.index(entry["category_id"])
        mine = np.flatnonzero((counted.images == entry["image_id"]) & (counted.classes == index))
        mine = mine[np.argsort(-counted.scores[mine], kind="stable")]
        annotation_ids = np.where(matches[mine] >= 0, matches[mine] + 1, 0)
        assert annotation_ids.tolist() == entry["dtMatches"][0].tolist()
        assert crowd[mine].tolist() == entry["dtIgnore"][0].tolist()


def test_curves_equal_counting_at_every_confidence(split):
    found, truth = tables(split)
    matches = match(found, truth)
    curves = confidence_curves(found, truth, matches, 3)
    real = ~truth.crowd
    for index in range(3):
        for step in range(0, 1001, 50):
            kept = (found.classes == index) & (found.scores >= CONFIDENCES[step])
            kept &= ~np.append(truth.crowd, False)[matches]
            hits, boxes = (matches[kept] >= 0).sum(), (truth.classes[real] == index).sum()
            precision = hits / kept.sum() if kept.any() else 1.0
            recall = hits / boxes
            assert curves.precision[index, step] == pytest.approx(precision)
            assert curves.recall[index, step] == pytest.approx(recall)
            f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
            assert curves.f1[index, step] == pytest.approx(f1)


def test_precision_and_recall_are_taken_where_mean_f1_is_best():
    truth = simple([(0, 0, 0), (0, 50, 0), (1, 100, 0)], crowd=[0, 0, 0])
    # Class 0 is best at 0.6 (two hits, one false alarm above 0.3); class 1 alone at 0.2.
    found = simple([(0, 0, 0.9), (0, 50, 0.6), (0, 200, 0.3), (1, 300, 0.2), (1, 100, 0.7)])
    curves = confidence_curves(found, truth, match(found, truth), 2)
    assert curves.best_confidence == pytest.approx(0.301)
    assert curves.precision[:, curves.best].tolist() == [1.0, 1.0]
    assert curves.recall[:, curves.best].tolist() == [1.0, 1.0]
    assert curves.best_confidence_per_class.tolist() == pytest.approx([0.301, 0.201])
    assert (curves.instances.tolist(), curves.images.tolist()) == ([2, 1], [1, 1])


def test_a_class_without_detections_has_precision_0_and_one_without_boxes_is_undefined():
    truth = simple([(0, 0, 0)], crowd=[0])
    found = simple([(1, 0, 0.9)])
    curves = confidence_curves(found, truth, match(found, truth), 2)
    assert (curves.precision[0] == 0).all()
    assert np.isnan(curves.precision[1]).all()
    assert curves.present.tolist() == [0]
    assert np.isnan(curves.best_confidence_per_class[1])


def test_a_box_is_found_once_and_by_the_best_score():
    truth = simple([(0, 0, 0)], crowd=[0])
    found = simple([(0, 1, 0.5), (0, 2, 0.9), (0, 0, 0.1)])
    assert match(found, truth).tolist() == [-1, 0, -1]


def test_a_crowd_takes_any_number_but_only_of_its_class():
    truth = simple([(0, 0, 0), (0, 0, 0)], crowd=[1, 0])
    found = simple([(0, 0, 0.9), (0, 1, 0.8), (0, 2, 0.7), (1, 2, 0.6)])
    assert match(found, truth).tolist() == [1, 0, 0, -1]
    assert match(found, truth, any_class=True).tolist() == [1, 0, 0, -1]


def test_confusion_counts_hits_mistakes_false_alarms_and_misses():
    truth = simple([(0, 0, 0), (0, 50, 0), (1, 100, 0), (1, 150, 0)], crowd=[0, 0, 0, 0])
    found = simple([(0, 0, 0.9), (1, 50, 0.8), (1, 100, 0.7), (1, 150, 0.24), (0, 300, 0.5)])
    # One cat as dog, one false cat, one dog missed because 0.24 is below the threshold 0.25.
    # Rows predicted, columns true, the background last, as in Ultralytics.
    assert confusion_matrix(found, truth, 2).tolist() == [[1, 0, 1], [1, 1, 0], [0, 1, 0]]


def test_only_the_best_100_of_a_class_and_image_count():
    found = simple([(0, 3 * step, step / 200) for step in range(150)] + [(1, 0, 0.01)])
    kept = keep_best_per_class(found, 100)
    assert len(kept.scores) == 101
    assert kept.scores[:100].min() == pytest.approx(50 / 200)


def test_crowded_images_take_no_more_memory_than_their_detections():
    """60 images of one class with 300 detections and 100 boxes each: 1.8 million candidates."""
    rng = np.random.default_rng(0)

    def boxes(count: int) -> np.ndarray:
        return np.concatenate([rng.uniform(0, 600, (count, 2)), rng.uniform(20, 60, (count, 2))], 1)

    found_in, boxes_in = np.repeat(np.arange(60), 300), np.repeat(np.arange(60), 100)
    found = Found(found_in, 0 * found_in, boxes(18_000), rng.random(18_000))
    truth = Truth(boxes_in, 0 * boxes_in, boxes(6000), np.zeros(6000, np.bool_), np.ones(6000))
    tracemalloc.start()
    match(found, truth)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All candidates at once take 280 MB; 2**18 of them at a time and their result take 40.
    assert peak < 80e6
