"""The choice of (query, class) pairs against a sort in plain Python."""

from __future__ import annotations

import numpy as np
import torch

from rtdetr_cli.core.detections import Selection
from rtdetr_cli.core.structures import ModelOutput
from rtdetr_cli.nn.postprocess import top_detections


def test_the_best_pairs_are_chosen_over_queries_and_classes():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 6, 3, generator=generator)
    boxes = torch.rand(2, 6, 4, generator=generator)
    sizes_hw = [(100, 200), (50, 30)]
    found = top_detections(ModelOutput(logits, boxes), sizes_hw, max_det=7)
    for image, (height, width) in enumerate(sizes_hw):
        pairs = [(logits[image, q, k].item(), q, k) for q in range(6) for k in range(3)]
        pairs = sorted(pairs, reverse=True)[:7]
        assert found[image].labels.tolist() == [k for _, _, k in pairs]
        expected_scores = torch.tensor([score for score, _, _ in pairs]).sigmoid()
        torch.testing.assert_close(torch.from_numpy(found[image].scores), expected_scores)
        for box, (_, q, _) in zip(found[image].boxes_xyxy, pairs, strict=True):
            cx, cy, w, h = boxes[image, q].tolist()
            expected = [
                (cx - w / 2) * width,
                (cy - h / 2) * height,
                (cx + w / 2) * width,
                (cy + h / 2) * height,
            ]
            np.testing.assert_allclose(box, expected, rtol=1e-5, atol=1e-5)


def test_one_query_may_yield_several_classes():
    logits = torch.tensor([[[5.0, 4.0, -9.0], [-9.0, -9.0, 3.0]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]]])
    (found,) = top_detections(ModelOutput(logits, boxes), [(10, 10)], max_det=3)
    assert found.labels.tolist() == [0, 1, 2]
    assert np.array_equal(found.boxes_xyxy[0], found.boxes_xyxy[1])


def test_fewer_pairs_than_asked_for_are_all_returned():
    output = ModelOutput(torch.randn(1, 2, 2), torch.rand(1, 2, 4))
    (found,) = top_detections(output, [(10, 10)], max_det=300)
    assert len(found) == 4
    assert (np.diff(found.scores) <= 0).all()


def test_boxes_may_leave_the_image():
    output = ModelOutput(torch.zeros(1, 1, 1), torch.tensor([[[0.0, 0.5, 0.5, 0.5]]]))
    (found,) = top_detections(output, [(100, 100)])
    assert found.boxes_xyxy[0].tolist() == [-25, 25, 25, 75]


def test_a_negative_size_counts_as_zero():
    boxes = torch.tensor([[[0.5, 0.5, -0.2, 0.4]]])
    (found,) = top_detections(ModelOutput(torch.zeros(1, 1, 1), boxes), [(10, 10)])
    np.testing.assert_allclose(found.boxes_xyxy, [[5, 3, 5, 7]], rtol=1e-6)


def test_half_precision_logits_give_float32_detections():
    output = ModelOutput(torch.randn(1, 4, 2).bfloat16(), torch.rand(1, 4, 4))
    (found,) = top_detections(output, [(640, 640)])
    assert found.scores.dtype == found.boxes_xyxy.dtype == np.float32


def test_chosen_classes_have_all_places_to_themselves():
    """The pairs of classes 0 and 2 in the order of a sort in plain Python."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 6, 3, generator=generator)
    logits[..., 1] += 10  # without the selection all places are of class 1
    output, sizes_hw = ModelOutput(logits, torch.rand(2, 6, 4, generator=generator)), [(9, 9)] * 2
    assert top_detections(output, sizes_hw, 5)[0].labels.tolist() == [1] * 5
    found = top_detections(output, sizes_hw, 5, Selection((2, 0)))
    for image in range(2):
        pairs = sorted((logits[image, q, k].item(), k) for q in range(6) for k in (0, 2))[::-1]
        assert found[image].labels.tolist() == [k for _, k in pairs[:5]]
        scores = torch.tensor([score for score, _ in pairs[:5]]).sigmoid()
        torch.testing.assert_close(torch.from_numpy(found[image].scores), scores)


def test_a_selection_has_no_pairs_besides_its_own():
    """Class 7 does not exist; two queries of one class are two pairs."""
    output = ModelOutput(torch.randn(1, 2, 3), torch.rand(1, 2, 4))
    (found,) = top_detections(output, [(10, 10)], 300, Selection((1, 7)))
    assert found.labels.tolist() == [1, 1]
    assert (found.scores > 0).all()
    assert len(top_detections(output, [(10, 10)], 300, Selection(()))[0]) == 0


def test_one_label_keeps_the_best_class_of_each_query():
    """Against the maximum of each query in plain Python; among the chosen classes if given."""
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(1, 6, 3, generator=generator)
    output = ModelOutput(logits, torch.rand(1, 6, 4, generator=generator))
    for classes in (None, (0, 2)):
        rows = [
            max((logit, k) for k, logit in enumerate(query) if classes is None or k in classes)
            for query in logits[0].tolist()
        ]
        (found,) = top_detections(output, [(9, 9)], 300, Selection(classes, one_label=True))
        assert found.labels.tolist() == [k for _, k in sorted(rows)[::-1]]
        assert len(np.unique(found.boxes_xyxy, axis=0)) == 6


def test_ranked_detections_lose_the_second_class_of_a_box():
    """As above, for a graph that has ranked all pairs: the classes of a query have equal boxes."""
    generator = torch.Generator().manual_seed(3)
    output = ModelOutput(torch.randn(1, 9, 4), torch.rand(1, 9, 4, generator=generator))
    (ranked,) = top_detections(output, [(9, 9)])
    assert len(ranked) == 36
    for selection in (Selection(one_label=True), Selection((1, 3), one_label=True)):
        (expected,) = top_detections(output, [(9, 9)], 300, selection)
        found = ranked.of(selection)
        assert found.labels.tolist() == expected.labels.tolist()
        assert np.array_equal(found.boxes_xyxy, expected.boxes_xyxy)
