import math

import pytest
import torch
import torchvision

from rtdetr_cli.core.box_ops import cxcywh_to_xyxy
from rtdetr_cli.loss.terms import box_overlap, mal_loss, vfl_loss


def random_boxes(count, seed):
    return torch.rand(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_overlap_equals_torchvision_for_all_pairs():
    boxes, targets = random_boxes(30, 0), random_boxes(20, 1)
    iou, giou = box_overlap(boxes[:, None], targets)
    corners = cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(targets)
    torch.testing.assert_close(iou, torchvision.ops.box_iou(*corners), rtol=0, atol=1e-14)
    torch.testing.assert_close(
        giou, torchvision.ops.generalized_box_iou(*corners), rtol=0, atol=1e-13
    )


@pytest.mark.parametrize(
    ("box", "target", "iou", "giou"),
    [
        ([0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2], 1, 1),
        ([0.2, 0.5, 0.2, 0.2], [0.8, 0.5, 0.2, 0.2], 0, -0.5),  # hull 0.16, half of it empty
        ([0.5, 0.5, 0.4, 0.4], [0.5, 0.5, 0.2, 0.2], 0.25, 0.25),  # one inside the other
        ([0.3, 0.5, 0.2, 0.2], [0.4, 0.5, 0.2, 0.2], 1 / 3, 1 / 3),
        ([0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.2, 0.2], 0, 0),  # a point inside a box
        ([0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], 0, 0),  # twice the same point
        ([0.2, 0.2, 0.0, 0.0], [0.8, 0.8, 0.0, 0.0], 0, -1),  # two points
        ([0.5, 0.2, 0.0, 0.1], [0.5, 0.8, 0.0, 0.1], 0, 0),  # two lines above one another
    ],
)
def test_overlap_of_boxes_computed_by_hand(box, target, iou, giou):
    overlap = box_overlap(*torch.tensor([box, target], dtype=torch.float64))
    assert [value.item() for value in overlap] == pytest.approx([iou, giou], abs=1e-12)


def test_a_box_of_one_pixel_in_4096_overlaps_itself_by_one():
    box = torch.tensor([0.5, 0.5, 1 / 4096, 1 / 4096])
    iou, giou = box_overlap(box, box)
    assert iou.item() == giou.item() == 1.0


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-6])
def test_gradients_of_degenerate_boxes_are_finite(size):
    boxes = torch.tensor([[0.5, 0.5, size, 0.1], [0.5, 0.5, size, size]]).requires_grad_()
    for targets in (boxes.detach(), torch.tensor([[0.5, 0.5, 0.2, 0.2]])):
        iou, giou = box_overlap(boxes, targets)
        (gradient,) = torch.autograd.grad((iou + giou).sum(), boxes)
        assert gradient.isfinite().all()


def test_a_positive_of_iou_zero_weighs_nothing():
    logits = torch.full((1, 1, 1, 2), 3.0, dtype=torch.float64)
    index = tuple(torch.zeros(1, 1, dtype=torch.int64) for _ in range(4))
    loss = vfl_loss(logits, index, torch.zeros(1, 1).double(), alpha=0.75, gamma=2.0)
    probability = 1 / (1 + math.exp(-3))
    assert loss.item() == pytest.approx(-0.75 * probability**2 * math.log(1 - probability))


def test_the_weight_of_negatives_lets_no_gradient_through():
    logits = torch.tensor([[[[-4.0, 0.5, 30.0]]]], dtype=torch.float64).requires_grad_()
    index = tuple(torch.zeros(1, 1, dtype=torch.int64) for _ in range(4))  # class 0 is positive
    iou = torch.full((1, 1), 0.6, dtype=torch.float64, requires_grad=True)
    vfl_loss(logits, index, iou, alpha=0.75, gamma=2.0).sum().backward()
    probability = logits.detach().sigmoid().flatten()
    expected = 0.75 * probability**3  # weight times (p - 0)
    expected[0] = 0.6 * (probability[0] - 0.6)
    torch.testing.assert_close(logits.grad.flatten(), expected, rtol=1e-12, atol=0)
    assert iou.grad is None


def test_a_bad_match_is_pushed_down_by_mal_and_left_alone_by_vfl():
    logits = torch.full((1, 1, 1, 1), 2.0, dtype=torch.float64).requires_grad_()
    index = tuple(torch.zeros(1, 1, dtype=torch.int64) for _ in range(4))
    iou = torch.full((1, 1), 0.04, dtype=torch.float64, requires_grad=True)
    probability = 1 / (1 + math.exp(-2))
    (of_mal,) = torch.autograd.grad(mal_loss(logits, index, iou, gamma=1.5).sum(), logits)
    assert of_mal.item() == pytest.approx(probability - 0.04**1.5)  # weight 1, target IoU^gamma
    (of_vfl,) = torch.autograd.grad(vfl_loss(logits, index, iou, 0.75, 2.0).sum(), logits)
    assert of_vfl.item() == pytest.approx(0.04 * (probability - 0.04))
    assert iou.grad is None
