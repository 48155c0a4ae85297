"""Lines and JSON: one per image, one per clip however long it is, errors in between."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from rtdetr_cli.core.results import Results
from rtdetr_cli.engine.predicting.lines import Totals, _shares, print_outcomes
from rtdetr_cli.media.item import Clip, SourceImage

IMAGE = np.zeros((48, 64, 3), np.uint8)
NAMES = {0: "person", 1: "bus"}


def found(path, labels=(), frame=None, clip=None):
    rows = torch.tensor([[0, 0, 9, 9, 0.5, label] for label in labels]).reshape(-1, 6)
    item = SourceImage(path, IMAGE, "", frame, None if frame is None else frame / 10, clip)
    results = Results(IMAGE, path, NAMES, rows, {"preprocess": 1, "inference": 2, "postprocess": 3})
    results.frame, results.time_s = item.frame, item.time_s
    return item, results


def failed(path, error, clip=None):
    item = SourceImage(path, None, error, clip=clip)
    return item, item


def some_outcomes():
    clip = Clip("in/road.mp4", 10.0, 3)
    return [
        found("a.jpg", [0]),
        *(found("in/road.mp4", [0, 0, 1], frame, clip) for frame in (1, 2, 3)),
        failed("in/road.mp4", "in/road.mp4: the video is damaged", clip),
        failed("b.jpg", "b.jpg: cannot be read"),
        found("c.jpg"),
    ]


def test_an_image_and_a_whole_clip_get_one_line_each(capsys):
    totals = Totals()
    print_outcomes(iter(some_outcomes()), totals, 4, as_json=False)
    out, err = capsys.readouterr()
    first, clip, last = out.splitlines()
    assert first == "image 1/4 a.jpg: 64x48 1 person, 2.0 ms"
    assert clip.startswith("video 2/4 in/road.mp4: 3 frames 64x48, 6 persons, 3 bus, ")
    assert clip.endswith(" frames/s")
    assert last.startswith("image 4/4 c.jpg: ")
    assert err.splitlines() == [
        "Warning: in/road.mp4: the video is damaged",
        "Warning: b.jpg: cannot be read",
    ]
    assert (totals.read, totals.errors) == (5, 2)
    assert totals.speed == {"preprocess": 5, "inference": 10, "postprocess": 15}


def test_json_has_a_row_for_each_frame_and_error_as_one_array(capsys):
    print_outcomes(iter(some_outcomes()), Totals(), 4, as_json=True)
    text = capsys.readouterr().out
    rows = json.loads(text)
    assert text == json.dumps(rows, indent=2) + "\n"
    assert [row.get("frame") for row in rows] == [None, 1, 2, 3, None, None, None]
    assert rows[2]["time_s"] == 0.2
    assert len(rows[2]["detections"]) == 3
    assert rows[4] == {"path": "in/road.mp4", "error": "in/road.mp4: the video is damaged"}


def test_json_is_complete_after_an_interruption(capsys):
    def interrupted():
        yield found("a.jpg")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        print_outcomes(interrupted(), Totals(), None, as_json=True)
    assert [row["path"] for row in json.loads(capsys.readouterr().out)] == ["a.jpg"]


def test_a_frame_that_is_written_is_counted_though_its_use_is_interrupted(capsys):
    class Interrupted(Totals):
        def add(self, item, outcome):
            super().add(item, outcome)
            if self.read == 2:
                raise KeyboardInterrupt

    clip = Clip("road.mp4", 25.0, 3)
    outcomes = [found("road.mp4", [0], number, clip) for number in (1, 2, 3)]
    with pytest.raises(KeyboardInterrupt):
        print_outcomes(iter(outcomes), Interrupted(), 1, as_json=False)
    assert capsys.readouterr().out.startswith("video 1/1 road.mp4: 2 frames")


def test_a_clip_that_is_interrupted_still_gets_its_line(capsys):
    clip = Clip("a.mp4", 10.0)

    def interrupted():
        yield found("a.mp4", [0], 1, clip)
        yield found("a.mp4", [0], 2, clip)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        print_outcomes(interrupted(), Totals(), 1, as_json=False)
    assert capsys.readouterr().out.startswith("video 1/1 a.mp4: 2 frames 64x48, 2 persons, ")


def test_the_bar_of_a_video_has_the_share_of_each_stage(monkeypatch):
    """Three frames with 1, 2 and 3 ms in the stages; of 20 ms these are 15, 30 and 45 %."""
    clip, seen = Clip("a.mp4", 10.0, 3), []

    def bar(items, total, label, status, unit):
        for item in items:
            yield item
            seen.append(status().beside)

    monkeypatch.setattr("rtdetr_cli.engine.predicting.lines.progress", bar)
    outcomes = [found("a.mp4", [0], frame, clip) for frame in (1, 2, 3)]
    print_outcomes(iter(outcomes), Totals(), 1, as_json=False)
    assert [len(beside) for beside in seen] == [2, 2, 2]
    assert seen[2][0].endswith(" frames/s")
    assert seen[2][1].startswith("preprocess ")
    speed = Counter({"preprocess": 3, "inference": 6, "postprocess": 9})
    assert _shares(speed, 0.02) == "preprocess 15 %, inference 30 %, postprocess 45 %"


def test_several_streams_get_a_line_each(capsys):
    clips = [Clip(f"rtsp://{n}", 10.0, is_live=True) for n in "ab"]
    outcomes = [found(clip.path, [0], n, clip) for n in (1, 2) for clip in clips]
    print_outcomes(iter(outcomes), Totals(), 2, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["stream rtsp://a", "stream rtsp://b"]


def test_an_error_that_is_everything_is_left_to_the_caller(capsys):
    totals = Totals()
    print_outcomes(iter([failed("a.jpg", "a.jpg: bad")]), totals, 1, as_json=False)
    assert capsys.readouterr() == ("", "")
    assert totals.first_error == "a.jpg: bad"


def test_json_lines_print_an_object_per_line(capsys):
    from rtdetr_cli.engine.predicting.lines import Totals, print_outcomes

    bad = SourceImage("b\n.jpg", None, "bad")
    good = SourceImage("a.jpg", np.zeros((4, 6, 3), np.uint8))
    results = Results(good.image, "a.jpg", {0: "car"}, np.array([[1, 2, 3, 4, 0.5, 0]]))
    print_outcomes([(good, results), (bad, bad)], Totals(), 2, "lines")
    first, second = capsys.readouterr().out.splitlines()
    assert json.loads(first)["detections"][0]["name"] == "car"
    assert json.loads(second) == {"path": "b\n.jpg", "error": "bad"}
    assert " " not in first
