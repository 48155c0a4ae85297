"""IoU by hand, and beside torchvision."""

import numpy as np
import torch
from torchvision.ops import box_iou as torchvision_iou

from rtdetr_cli.engine.predicting.box_iou import box_iou


def test_iou_is_that_of_torchvision():
    rng = np.random.default_rng(0)
    low, size = rng.random((2, 20, 2))
    boxes = np.concatenate([low, low + size], axis=1)
    expected = torchvision_iou(torch.from_numpy(boxes[:8]), torch.from_numpy(boxes[8:]))
    np.testing.assert_allclose(box_iou(boxes[:8], boxes[8:]), expected, rtol=0, atol=1e-12)


def test_two_boxes_without_area_have_an_iou_of_0():
    point = np.array([[3.0, 3, 3, 3]])
    assert box_iou(point, point).tolist() == [[0]]
