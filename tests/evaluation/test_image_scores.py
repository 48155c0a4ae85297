"""Every box and detection of an image has its verdict, and they add up to its errors."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from rtdetr_cli.core.detections import Detections
from rtdetr_cli.evaluation.coco import CocoEvaluator
from rtdetr_cli.evaluation.image_scores import Verdict, score_images

CAT, DOG = 0, 1


def split(rows: list[tuple[int, int, list[float], int]], num_images: int = 3) -> CocoEvaluator:
    """Boxes as (image, class, xywh, iscrowd)."""
    return CocoEvaluator(
        {
            "images": [{"id": number} for number in range(1, num_images + 1)],
            "annotations": [
                {"id": n, "image_id": image, "category_id": label, "bbox": box, "iscrowd": crowd}
                for n, (image, label, box, crowd) in enumerate(rows, 1)
            ],
            "categories": [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog"}],
        },
        [CAT, DOG],
    )


def detect(
    evaluator: CocoEvaluator, image: int, rows: list[tuple[list[float], float, int]]
) -> None:
    """Detections as (xywh, score, class)."""
    boxes = torch.tensor([box for box, _, _ in rows], dtype=torch.float64).reshape(-1, 4)
    corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
    scores = torch.tensor([score for _, score, _ in rows])
    evaluator.update(image, Detections(corners, scores, torch.tensor([n for *_, n in rows])))


@pytest.fixture
def evaluator() -> CocoEvaluator:
    """Image 1: one of each verdict. Image 2: right. Image 3: empty."""
    evaluator = split(
        [
            (1, CAT, [0, 0, 10, 10], 0),
            (1, CAT, [100, 0, 10, 10], 0),
            (1, CAT, [200, 0, 10, 10], 0),
            (1, DOG, [300, 0, 50, 50], 1),
            (2, CAT, [0, 0, 10, 10], 0),
            (2, DOG, [50, 0, 10, 10], 0),
        ]
    )
    detect(
        evaluator,
        1,
        [
            ([0, 0, 10, 10], 0.9, CAT),
            ([1, 0, 10, 10], 0.8, CAT),  # IoU 9 / 11 with a box that is found
            ([100, 0, 10, 10], 0.9, DOG),
            ([400, 400, 10, 10], 0.9, DOG),
            ([310, 10, 20, 20], 0.9, DOG),
            ([600, 600, 10, 10], 0.001, CAT),  # removed by the threshold
        ],
    )
    detect(evaluator, 2, [([0, 0, 10, 10], 0.9, CAT), ([50, 0, 10, 10], 0.85, DOG)])
    return evaluator


def test_every_kind_of_error_is_told_apart(evaluator):
    scores = score_images(evaluator)
    # Without the two false cats at 0.001 and 0.8 the F1 of cat is highest.
    assert 0.8 < scores.confidence <= 0.85
    truth, found = scores.boxes(1)
    assert [(one.label, one.verdict.value, one.score) for one in truth] == [
        (CAT, "right", None), (CAT, "missed", None), (CAT, "missed", None), (DOG, "ignored", None),
    ]  # fmt: skip
    assert Counter(one.verdict for one in found) == Counter(
        [Verdict.RIGHT, Verdict.WRONG_CLASS, Verdict.FALSE, Verdict.IGNORED]
    )
    wrong = next(one for one in found if one.verdict is Verdict.WRONG_CLASS)
    assert (wrong.corners, wrong.label, wrong.score) == ((100, 0, 110, 10), DOG, pytest.approx(0.9))


def test_a_second_detection_of_a_box_is_a_duplicate():
    evaluator = split([(1, CAT, [0, 0, 10, 10], 0)])
    detect(evaluator, 1, [([0, 0, 10, 10], 0.9, CAT), ([1, 0, 10, 10], 0.9, CAT)])
    _, found = score_images(evaluator).boxes(1)
    assert [one.verdict for one in found] == [Verdict.RIGHT, Verdict.DUPLICATE]


def test_errors_are_the_verdicts_that_are_wrong(evaluator):
    scores = score_images(evaluator)
    assert scores.image_ids.tolist() == [1, 2, 3]
    # Image 1: 1 hit, 2 missed, 2 false: F1 = 2 / (2 + 2 + 2).
    assert scores.missed.tolist() == [2, 0, 0]
    assert scores.false.tolist() == [2, 0, 0]
    assert scores.f1.tolist() == pytest.approx([2 / 6, 1, 1])
    assert scores.worst(10) == [1]


def test_the_worst_images_come_in_the_order_of_their_errors_then_of_f1():
    box = [0, 0, 10, 10]
    far = [[100 * n, 500, 10, 10] for n in range(4)]
    two = [(2, CAT, far[0], 0), (2, CAT, far[1], 0)]
    three = [(3, CAT, box, 0), (3, CAT, far[0], 0)]
    evaluator = split([(1, CAT, box, 0), *two, *three, (4, CAT, box, 0)], num_images=4)
    for image in (1, 3, 4):
        detect(evaluator, image, [(box, 0.9, CAT)])
    detect(evaluator, 1, [(box, 0.9, CAT), (far[3], 0.9, CAT)])
    # Image 1: one false, F1 2/3. Image 2: two missed. Image 3: one missed, F1 2/3. Image 4: none.
    scores = score_images(evaluator)
    assert scores.worst(9) == [2, 1, 3]
    assert scores.worst(2) == [2, 1]


def test_verdicts_add_up_on_random_detections():
    rng = np.random.default_rng(0)
    boxes = [
        (int(image), int(label), [*rng.uniform(0, 50, 2), *rng.uniform(5, 30, 2)], int(crowd))
        for image, label, crowd in zip(
            rng.integers(1, 4, 60), rng.integers(0, 2, 60), rng.random(60) < 0.1, strict=True
        )
    ]
    evaluator = split(boxes)
    for image in (1, 2, 3):
        rows = [
            (
                (np.array(box) + rng.normal(0, 1, 4)).tolist(),
                float(rng.random()),
                int(rng.integers(2)),
            )
            for number, _, box, _ in boxes
            if number == image
        ]
        detect(evaluator, image, rows)
    scores = score_images(evaluator)
    right, good = Verdict.RIGHT, {Verdict.RIGHT, Verdict.IGNORED}
    for image in (1, 2, 3):
        truth, found = scores.boxes(image)
        at = scores.position(image)
        assert sum(one.verdict is Verdict.MISSED for one in truth) == scores.missed[at] > 0
        assert sum(one.verdict not in good for one in found) == scores.false[at] > 0
        hits = sum(one.verdict is right for one in truth)
        assert hits == sum(one.verdict is right for one in found) > 0
