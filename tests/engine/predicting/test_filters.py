"""Filters of a prediction on a tiny network: which pairs the detector selects from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rtdetr_cli.backends.torch import TorchDetector
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.config.settings.track import TrackSettings
from rtdetr_cli.core.detections import Detections
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.engine.predicting.filters import find_filters
from rtdetr_cli.nn.rtdetr import RTDETRNetwork


@pytest.fixture(scope="module")
def make_filters(tiny_config):
    names = {0: "cat", 1: "dog", 2: "bus"}
    network = RTDETRNetwork(tiny_config, 3)
    detector = TorchDetector(network, names, Preprocessing((64, 64)), torch.device("cpu"))

    def make(kind=PredictSettings, **keys):
        return find_filters(detector, kind(source="a", **keys))

    return make


def test_classes_are_selected_by_index_with_the_lowest_of_their_thresholds(make_filters):
    filters = make_filters(classes=("bus", 1), conf="bus:0.4,cat:0.1,dog:0.5")
    assert set(filters.selection.classes) == {1, 2}
    assert filters.selection.above == pytest.approx(0.4)
    assert not filters.selection.one_label
    assert make_filters(one_label=True).selection.one_label
    everything = make_filters(conf=0.3).selection
    assert (everything.classes, everything.above) == (None, pytest.approx(0.3))
    with pytest.raises(UsageError, match="did you mean bus"):
        make_filters(classes=("buss",))


def test_at_most_max_det_are_kept_above_the_threshold_of_their_class(make_filters):
    """More are requested of the detector, because the best may be below their threshold."""
    filters = make_filters(conf="cat:0.7,dog:0.2", max_det=1)
    found = Detections(np.zeros((3, 4)), np.array([0.6, 0.5, 0.4]), np.array([0, 1, 1]))
    kept = filters.choose(found)
    assert kept.labels.tolist() == [1]
    assert kept.scores.tolist() == [0.5]
    assert filters.num_pairs == 300
    assert make_filters(max_det=500).num_pairs == 500


def test_rect_needs_a_free_input_size(make_filters, monkeypatch):
    assert make_filters(rect=True)
    monkeypatch.setattr(TorchDetector, "size_is_free", False)
    with pytest.raises(UsageError, match=r"rtdetr-l\.pt takes 64x64 only; export it with dynamic"):
        make_filters(rect=True)


def boxes(*rows):
    return np.array(rows, np.float32)


FOUND = Detections(
    boxes([0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 7.9], [0, 0, 10, 9], [20, 0, 30, 10]),
    np.array([0.9, 0.8, 0.7, 0.6, 0.5], np.float32),
    np.array([0, 0, 0, 1, 0]),
)
"""IoU with the first box: 1, 0.8, 0.79, 0.9 (another class), 0."""


def test_nms_drops_boxes_of_a_class_above_the_iou(make_filters):
    assert make_filters().choose(FOUND).scores.tolist() == FOUND.scores.tolist()

    def kept(**keys):
        return make_filters(nms=0.795, **keys).choose(FOUND).scores.tolist()

    assert kept() == pytest.approx([0.9, 0.7, 0.6, 0.5])
    assert kept(agnostic_nms=True) == pytest.approx([0.9, 0.7, 0.5])
    assert kept(max_det=2) == pytest.approx([0.9, 0.7])  # what NMS drops takes no place
    assert kept(conf=0.85) == pytest.approx([0.9])


def test_track_keeps_one_box_of_an_object_whatever_its_class(make_filters):
    assert make_filters(TrackSettings).choose(FOUND).scores.tolist() == pytest.approx([0.9, 0.5])
    by_class = make_filters(TrackSettings, agnostic_nms=False).choose(FOUND).scores.tolist()
    assert by_class == pytest.approx([0.9, 0.6, 0.5])
    assert len(make_filters(TrackSettings, nms=None).choose(FOUND)) == 5
    with pytest.raises(UsageError, match="track: agnostic_nms has no effect without nms"):
        TrackSettings(source="a", nms=None, agnostic_nms=False)


def test_a_box_that_is_dropped_drops_no_other(make_filters):
    """The second overlaps both others by 0.6 and its class is that of the third."""
    found = Detections(
        boxes([0, 0, 100, 10], [25, 0, 125, 10], [50, 0, 150, 10]),
        np.array([0.9, 0.8, 0.7], np.float32),
        np.array([0, 1, 1]),
    )
    kept = make_filters(TrackSettings, nms=0.5).choose(found)
    assert kept.scores.tolist() == pytest.approx([0.9, 0.7])


def test_nms_of_no_detections_is_none(make_filters):
    empty = FOUND.keep(np.zeros(5, bool))
    assert len(make_filters(nms=0.5).choose(empty)) == 0


def test_agnostic_nms_alone_is_refused():
    with pytest.raises(UsageError, match="agnostic_nms has no effect without nms"):
        PredictSettings(source="a", agnostic_nms=True)
