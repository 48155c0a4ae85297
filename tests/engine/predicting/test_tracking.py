"""Ids of the detections of successive frames; the tracker itself is a stand-in."""

import numpy as np
import pytest
import torch

from rtdetr_cli.core.results import Results
from rtdetr_cli.engine.predicting.tracking import Trackers
from rtdetr_cli.media.item import Clip, SourceImage

IMAGE = np.zeros((100, 200, 3), np.uint8)


def frame(path, boxes, clip=None, number=None, time_s=None):
    """A frame with 10 x 10 boxes at (x, y, score)."""
    rows = torch.tensor([[x, y, x + 10, y + 10, score, 1] for x, y, score in boxes])
    item = SourceImage(path, IMAGE, "", number, time_s, clip)
    results = Results(IMAGE, path, {0: "person", 1: "car"}, rows.reshape(-1, 6).float())
    results.frame = number
    return item, results


def run(trackers, *frames):
    for item, results in frames:
        trackers.update([item], [results])
    return [[int(one) for one in results.boxes.id] for _, results in frames]


def clip_frames(clip, *positions, step_s=0.1):
    return [
        frame(clip.path, [(x, 20, 0.9)], clip, number, (number - 1) * step_s)
        for number, x in enumerate(positions, start=1)
    ]


def test_boxes_keep_their_ids_order_and_values(opened_trackers):
    trackers = Trackers(opened_trackers[0])
    clip = Clip("a.mp4", 10.0)
    first = frame("a.mp4", [(0, 0, 0.9), (100, 50, 0.6)], clip, 1, 0.0)
    second = frame("a.mp4", [(104, 52, 0.8), (5, 1, 0.7)], clip, 2, 0.1)
    before = second[1].boxes.data.clone()
    assert run(trackers, first, second) == [[1, 2], [2, 1]]
    boxes = second[1].boxes
    assert boxes.is_track
    assert torch.equal(boxes.data[:, [0, 1, 2, 3, 5, 6]], before)
    assert opened_trackers[1][0].fps == 10.0


def test_boxes_without_a_track_are_left_out():
    class Second:
        def update(self, boxes, image_bgr, time_s):
            return np.array([0, 7])

    trackers = Trackers(lambda fps: Second())
    one = frame("a.jpg", [(0, 0, 0.9), (50, 0, 0.4)])
    assert run(trackers, one) == [[7]]
    assert one[1].boxes.conf.tolist() == pytest.approx([0.4])


def test_a_box_under_two_classes_is_one_object(opened_trackers):
    item, results = frame("a.jpg", [(0, 0, 0.9), (50, 0, 0.5), (0, 0, 0.3)])
    assert run(Trackers(opened_trackers[0]), (item, results)) == [[1, 2]]
    assert results.boxes.conf.tolist() == pytest.approx([0.9, 0.5])


def test_boxes_without_an_area_and_infinite_ones_are_left_out(opened_trackers):
    rows = torch.tensor([[5, 5, 5, 9], [0, 0, 4, 4], [0, 0, float("nan"), 4], [0, 0, 9, torch.inf]])
    results = Results(IMAGE, "a.jpg", {0: "car"}, torch.cat([rows, torch.ones(4, 2)], dim=1))
    Trackers(opened_trackers[0]).update([SourceImage("a.jpg", IMAGE)], [results])
    assert results.boxes.xyxy.tolist() == [[0, 0, 4, 4]]


def test_a_frame_without_boxes_has_no_ids_and_does_not_end_tracks(opened_trackers):
    frames = [frame("a.jpg", boxes) for boxes in ([(0, 0, 0.9)], [], [(3, 0, 0.9)])]
    assert run(Trackers(opened_trackers[0]), *frames) == [[1], [], [1]]
    assert frames[1][1].boxes.id.shape == (0,)


def test_each_video_has_a_tracker_and_finished_ones_are_forgotten(opened_trackers):
    open_one, opened = opened_trackers
    trackers = Trackers(open_one)
    one, two = Clip("a.mp4", 10.0), Clip("a.mp4", 25.0)  # a file given twice
    assert run(trackers, *clip_frames(one, 0, 5), *clip_frames(two, 100, 105)) == [[1]] * 4
    assert [tracker.fps for tracker in opened] == [10.0, 25.0]
    assert len(trackers._sequences) == 1


def test_streams_that_alternate_keep_their_trackers(opened_trackers):
    left, right = (Clip(f"rtsp://{side}", 25.0, is_live=True) for side in "lr")
    frames = [
        one
        for pair in zip(clip_frames(left, 0, 5, 9), clip_frames(right, 50, 90, 94), strict=True)
        for one in pair
    ]
    assert run(Trackers(opened_trackers[0]), *frames) == [[1], [1], [1], [2], [1], [2]]
    assert len(opened_trackers[1]) == 2


def test_images_of_a_folder_are_a_sequence_and_get_frame_numbers(opened_trackers):
    trackers = Trackers(opened_trackers[0])
    frames = [frame(f"in/a/{number}.jpg", [(3 * number, 0, 0.9)]) for number in range(2)]
    other = frame("in/b/0.jpg", [(0, 0, 0.9)])
    trackers.update([frames[0][0]], [frames[0][1]])
    trackers.update([SourceImage("in/a/x.jpg", None, "broken"), frames[1][0]], [frames[1][1]])
    assert frames[1][1].frame == 3  # the unreadable one is the second
    assert opened_trackers[1][0].times == pytest.approx([1 / 30, 3 / 30])
    assert run(trackers, other) == [[1]]
    assert other[1].frame == 1


def test_dropped_frames_are_a_step_in_time(opened_trackers):
    clip = Clip("a.mp4", 10.0)
    frames = clip_frames(clip, 0, 5, 9, 12)
    run(Trackers(opened_trackers[0]), frames[0], frames[1], frames[3])
    assert opened_trackers[1][0].times == pytest.approx([0.0, 0.1, 0.3])


def test_persisting_tracks_continue_in_the_next_file_and_call(opened_trackers):
    trackers = Trackers(opened_trackers[0], persist=True)
    first, second = (
        clip_frames(Clip(path, 10.0), *xs) for path, xs in (("a.mp4", (0, 5)), ("b.mp4", (9, 14)))
    )
    assert run(trackers, *first, *second) == [[1]] * 4
    assert opened_trackers[1][0].times == pytest.approx([0.0, 0.1, 0.2, 0.3])
    array = frame("image0.jpg", [(17, 20, 0.9)])
    assert run(trackers, array) == [[1]]
    trackers.reset()
    assert run(trackers, frame("image0.jpg", [(150, 20, 0.9)])) == [[1]]


def test_a_time_that_does_not_advance_is_one_step_later(opened_trackers):
    clip = Clip("a.mp4", 10.0)
    frames = [frame("a.mp4", [], clip, n, t) for n, t in ((1, 0.0), (2, 0.1), (3, 0.1), (4, 0.2))]
    run(Trackers(opened_trackers[0]), *frames)
    assert opened_trackers[1][0].times == pytest.approx([0.0, 0.1, 0.2, 0.3])
