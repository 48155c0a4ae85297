"""The NumPy ranking against the PyTorch one, which is held to a sort in plain Python."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rtdetr_cli.backends.ranking import best_first, rank_scores, sigmoid
from rtdetr_cli.core.detections import Selection
from rtdetr_cli.core.structures import ModelOutput
from rtdetr_cli.nn.postprocess import top_detections

SIZES_HW = [(480, 640), (1080, 810)]


@pytest.mark.parametrize("max_det", [1, 20, 300, 1000])
@pytest.mark.parametrize("classes", [None, (7, 2), (1, 99), ()])
@pytest.mark.parametrize("one_label", [False, True])
def test_both_rankings_return_the_same(max_det, classes, one_label):
    selection = Selection(classes, one_label)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 50, 9, generator=generator)
    boxes = torch.rand(2, 50, 4, generator=generator)
    expected = top_detections(ModelOutput(logits, boxes), SIZES_HW, max_det, selection)
    scores = sigmoid(logits.numpy())
    found = rank_scores(scores, boxes.numpy(), SIZES_HW, max_det, selection)
    for one, other in zip(found, expected, strict=True):
        assert one.labels.tolist() == other.labels.tolist()
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-6)
        np.testing.assert_array_equal(one.boxes_xyxy, other.boxes_xyxy)
        assert one.boxes_xyxy.dtype == one.scores.dtype == np.float32


def test_equal_scores_keep_their_order_and_nan_comes_first():
    scores = np.array([0.5, 0.9, np.nan, 0.5, 0.1], np.float32)
    assert best_first(scores, 5).tolist() == [2, 1, 0, 3, 4]
    assert best_first(scores, 2).tolist() == [2, 1]
    assert best_first(scores, 0).tolist() == []


def test_the_sigmoid_of_large_logits_is_0_or_1_without_a_warning():
    assert sigmoid(np.array([-1000, 0, 1000], np.float32)).tolist() == [0, 0.5, 1]
