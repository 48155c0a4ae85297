"""Boxes keep the names and the meaning that users of Ultralytics know."""

import numpy as np
import pytest
import torch

from rtdetr_cli.core.boxes import Boxes
from rtdetr_cli.core.errors import UsageError

ROWS = torch.tensor([[10.0, 20.0, 50.0, 40.0, 0.9, 1.0], [-5.0, 90.0, 30.0, 110.0, 0.5, 0.0]])


def test_boxes_are_given_in_every_format():
    boxes = Boxes(ROWS, (100, 200))
    assert boxes.xyxy.tolist() == [[10, 20, 50, 40], [-5, 90, 30, 110]]
    assert boxes.xywh.tolist() == [[30, 30, 40, 20], [12.5, 100, 35, 20]]
    torch.testing.assert_close(boxes.xyxyn[0], torch.tensor([0.05, 0.2, 0.25, 0.4]))
    torch.testing.assert_close(boxes.xywhn[0], torch.tensor([0.15, 0.3, 0.2, 0.2]))
    torch.testing.assert_close(boxes.conf, torch.tensor([0.9, 0.5]))
    assert boxes.cls.tolist() == [1.0, 0.0]
    assert boxes.cls.is_floating_point()
    assert boxes.shape == (2, 6)
    assert boxes.id is None
    assert boxes.is_track is False


def test_boxes_of_tracks_have_ids_before_the_score():
    rows = torch.cat([ROWS[:, :4], torch.tensor([[7.0], [3.0]]), ROWS[:, 4:]], dim=1)
    boxes = Boxes(rows, (100, 200))
    assert boxes.is_track
    assert boxes.id.tolist() == [7, 3]
    plain = Boxes(ROWS, (100, 200))
    for name in ("xyxy", "conf", "cls", "xywhn"):
        assert torch.equal(getattr(boxes, name), getattr(plain, name))
    assert boxes[1].id.tolist() == boxes.clipped().numpy()[1].id.tolist() == [3]
    assert boxes[:0].id.shape == (0,)


def test_boxes_are_walked_over_and_chosen_like_arrays():
    boxes = Boxes(ROWS, (100, 200))
    assert len(boxes) == 2
    assert [int(box.cls) for box in boxes] == [1, 0]
    assert boxes[0].shape == (1, 6)
    assert boxes[boxes.conf > 0.7].cls.tolist() == [1.0]
    assert boxes[:0].xywhn.shape == (0, 4)


def test_boxes_as_numpy_answer_numpy_everywhere():
    boxes = Boxes(ROWS, (100, 200)).numpy()
    for values in (boxes.data, boxes.xyxy, boxes.xywh, boxes.xyxyn, boxes.xywhn, boxes.conf):
        assert isinstance(values, np.ndarray)
    np.testing.assert_allclose(boxes.xywh[0], [30, 30, 40, 20])
    assert isinstance(boxes.clipped().data, np.ndarray)
    assert isinstance(boxes.to("cpu").data, torch.Tensor)


def test_boxes_refuse_rows_of_another_width():
    with pytest.raises(UsageError, match=r"shape \(3, 4\): expected \(N, 6\)"):
        Boxes(torch.zeros(3, 4), (10, 10))


def test_clipping_cuts_at_the_border_and_leaves_the_original():
    boxes = Boxes(ROWS, (100, 200))
    assert boxes.clipped().xyxy[1].tolist() == [0, 90, 30, 100]
    assert boxes.xyxy[1].tolist() == [-5, 90, 30, 110]
