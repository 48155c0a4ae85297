"""Boxes of a split in arrays, and pairs of them that overlap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torchvision.ops import box_iou

from rtdetr_cli.data.checks.boxes import box_example, boxes_of, overlapping
from rtdetr_cli.data.dataset import DetectionDataset, LabelledBox, make_record


def dataset(*images: list[LabelledBox]) -> DetectionDataset:
    records = [
        make_record(n, Path(f"/data/{n}.png"), (100, 200), boxes, f"/data/{n}.txt:")
        for n, boxes in enumerate(images)
    ]
    return DetectionDataset({0: "cat", 1: "dog"}, [0, 1], records)


def test_crowds_are_left_out_and_positions_are_kept():
    crowd = LabelledBox(0, [0, 0, 90, 90], crowd=True)
    boxes = boxes_of(
        dataset([crowd, LabelledBox(1, [1, 2, 3, 4])], [], [LabelledBox(0, [0, 0, 5, 5])])
    )
    assert boxes.record.tolist() == [0, 2]
    assert boxes.inner.tolist() == [1, 0]
    assert boxes.corners.tolist() == [[1, 2, 3, 4], [0, 0, 5, 5]]
    assert boxes.labels.tolist() == [1, 0]
    assert boxes.size_hw.tolist() == [[100, 200]] * 2


def test_a_split_without_images_or_boxes_has_no_pairs():
    assert len(boxes_of(dataset()).record) == 0
    assert len(overlapping(boxes_of(dataset([], [])), 0.5).iou) == 0


def test_pairs_are_those_of_all_boxes_of_an_image_by_torchvision():
    """Against all pairs, in dense images of random boxes."""
    rng = np.random.default_rng(0)
    images = []
    for count in (0, 1, 40, 2, 60):
        low = rng.uniform(0, 12, (count, 2))
        corners = np.hstack([low, low + rng.uniform(50, 60, (count, 2))])
        images.append([LabelledBox(0, one) for one in corners.tolist()])
    boxes = boxes_of(dataset(*images))
    for least in (0.6, 0.9):
        pairs = overlapping(boxes, least)
        found = {frozenset(pair) for pair in np.stack([pairs.first, pairs.second], 1).tolist()}
        iou = box_iou(*[torch.from_numpy(boxes.corners).double()] * 2).numpy()
        same = boxes.record[:, None] == boxes.record
        expected = np.argwhere(np.triu((iou > least) & same, 1))
        assert found == {frozenset(pair) for pair in expected.tolist()}
        assert len(found) == len(pairs.iou) > 20
        np.testing.assert_allclose(pairs.iou, iou[pairs.first, pairs.second])


def test_an_example_is_at_the_first_box_and_marks_all():
    made = dataset([LabelledBox(0, [0, 0, 5, 5], place=1), LabelledBox(1, [1, 2, 3, 4], place=4)])
    example = box_example(made, boxes_of(made), [1, 0], "close")
    assert (example.where, example.what) == ("/data/0.txt:4", "close")
    assert example.images == (Path("/data/0.png"),)
    assert [box.caption for box in example.boxes] == ["dog", "cat"]
    assert example.boxes[0].corners == (1, 2, 3, 4)
