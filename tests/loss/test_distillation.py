from __future__ import annotations

import pytest
import torch

from rtdetr_cli.loss.distillation import distill_loss
from tests.loss.test_dfine_parity import kit  # noqa: F401  (a fixture)


@pytest.mark.parametrize(("size", "name"), [(6, "distill_resized"), (4, "distill_same_size")])
def test_the_loss_equals_that_of_rtdetrv4(kit, size, name):  # noqa: F811
    teacher = kit["in/teacher_map"][:, :, :size, :size]
    loss = distill_loss(kit["in/student_map"], teacher)
    assert loss.item() == pytest.approx(kit[f"rtdetrv4/{name}"].item(), rel=1e-12)


def test_the_angle_counts_and_the_length_does_not():
    teacher = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 1, 3)
    student = torch.tensor([[5.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]).T.reshape(1, 2, 1, 3)
    assert distill_loss(student, teacher).item() == pytest.approx((0 + 1 + 2) / 3)


def test_only_the_student_learns():
    student, teacher = (torch.rand(1, 3, 2, 2, requires_grad=True) for _ in range(2))
    distill_loss(student, teacher).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
