"""Arrays that take the place of tensors: the calls that code for tensors makes, on both."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rtdetr_cli.core.arrays import HostArray, copied, is_tensor, same_kind, to_xywh
from rtdetr_cli.core.boxes import Boxes

ROWS = np.array([[0, 10, 20, 40, 0.9, 2], [5, 5, 6, 7, 0.5, 0]], np.float32)
BOTH = pytest.mark.parametrize("rows", [ROWS.view(HostArray), torch.from_numpy(ROWS)])


@BOTH
def test_calls_on_the_values_of_boxes_return_the_same(rows):
    boxes = Boxes(rows, (40, 20))
    assert boxes.xyxy.cpu().numpy().tolist() == ROWS[:, :4].tolist()
    assert type(boxes.xyxy.detach().cpu().numpy()) is np.ndarray
    assert boxes.cls.int().cpu().tolist() == boxes.cls.long().tolist() == [2, 0]
    assert boxes.xywh.cpu().numpy().tolist() == [[10, 25, 20, 30], [5.5, 6, 1, 2]]
    assert boxes.xyxyn.cpu().numpy()[0].tolist() == [0, 0.25, 1, 1]
    assert boxes.conf[0].cpu().item() == pytest.approx(0.9)
    assert f"{boxes.conf[0]:.2f}" == "0.90"
    assert boxes[boxes.conf > 0.6].cls.tolist() == [2]
    for box, row in zip(boxes, ROWS, strict=True):
        assert (int(box.cls), float(box.conf)) == (int(row[5]), float(row[4]))
        assert box.xyxy[0].cpu().numpy().astype(int).tolist() == row[:4].astype(int).tolist()
    assert type(boxes.cpu().numpy().xyxy) is np.ndarray


@BOTH
def test_the_kind_of_the_values_stays(rows):
    for values in (to_xywh(rows[:, :4]), copied(rows)):
        assert isinstance(values, type(rows))
    assert same_kind(rows, (3, 4)).dtype == rows.dtype
    copied(rows)[0, 0] = 9
    assert rows[0, 0] == 0


def test_only_tensors_are_tensors():
    assert [is_tensor(one) for one in (torch.zeros(1), ROWS, 3)] == [True, False, False]
