"""Each stream has its window, files share one; their times are those of the clip."""

import numpy as np
import pytest

from rtdetr_cli.core.results import DrawStyle, Results
from rtdetr_cli.engine.predicting import display as module
from rtdetr_cli.engine.predicting.display import Display
from rtdetr_cli.media.draw import draw_boxes
from rtdetr_cli.media.item import Clip, SourceImage

PIXELS = np.zeros((16, 16, 3), np.uint8)


@pytest.fixture
def shown(monkeypatch):
    calls = []
    show = lambda self, title, image, seconds: calls.append((title, seconds))  # noqa: E731
    monkeypatch.setattr(module.Windows, "show", show)
    return calls


def test_titles_and_times(shown):
    items = [
        SourceImage("a.jpg", PIXELS),
        SourceImage("broken.jpg", None, "broken"),
        SourceImage("b.mp4", PIXELS, frame=1, clip=Clip("b.mp4", 25.0)),
        SourceImage("rtsp://one", PIXELS, frame=1, clip=Clip("rtsp://one", 30.0, is_live=True)),
    ]
    results = [Results(PIXELS, "x", {}, painter=draw_boxes) for _ in range(3)]
    drawn = Display(DrawStyle()).show(items, results)
    assert [one.shape for one in drawn] == [PIXELS.shape] * 3
    assert shown == [("rtdetr", None), ("rtdetr", 0.04), ("rtsp://one", 0.0)]


def test_what_a_callback_put_in_place_of_results_is_passed_over(shown):
    items = [SourceImage("a.jpg", PIXELS)]
    assert Display(DrawStyle()).show(items, ["something else"]) == [None]
    assert shown == []
