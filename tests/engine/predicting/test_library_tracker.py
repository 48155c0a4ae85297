"""The trackers of the package trackers: equal to using it directly. Skipped if it is absent."""

import numpy as np
import pytest
import torch

from rtdetr_cli.config.settings.track import TrackSettings
from rtdetr_cli.core.boxes import Boxes
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.engine.predicting import library_tracker
from rtdetr_cli.engine.predicting.library_tracker import (
    LibraryTracker,
    library_options,
    open_trackers,
)

SIZE_HW = (120, 200)
KINDS = ("bytetrack", "ocsort", "botsort")


def settings(tracker="bytetrack", **keys):
    return TrackSettings(source="x", tracker=tracker, **keys)


@pytest.fixture
def library():
    return pytest.importorskip("trackers", reason="pip install 'rtdetr-cli[track]'")


def crossing(length=20, missing=()):
    """Two 20 x 20 boxes that pass each other, with low scores in the middle, as frames."""
    for number in range(length):
        x, score = 8.0 * number, 0.15 if 8 <= number < 11 else 0.8
        rows = [[x, 20, x + 20, 40, score, 0], [170 - x, 70, 190 - x, 90, 0.9, 1]]
        yield number, torch.tensor([] if number in missing else rows).reshape(-1, 6)


def ids_of(tracker, frames):
    image = np.random.default_rng(0).integers(0, 255, (*SIZE_HW, 3), np.uint8)
    return {n: tracker.update(Boxes(rows, SIZE_HW), image, n / 10).tolist() for n, rows in frames}


def test_without_the_package_one_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(library_tracker, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"needs the package trackers: pip install 'rtdetr-cli"):
        open_trackers(settings())


def test_options_have_the_names_of_the_library():
    assert library_options(settings(track_high_thresh=0.3, match_iou=0.2, min_frames=1)) == {
        "high_conf_det_threshold": 0.3,
        "track_activation_threshold": 0.3,
        "lost_track_buffer": 30,
        "minimum_iou_threshold": 0.2,
        "minimum_consecutive_frames": 1,
    }
    assert library_options(settings("ocsort")) == {
        "high_conf_det_threshold": 0.25,
        "lost_track_buffer": 30,
    }
    assert library_options(settings("botsort", match_iou=0.4, gmc_method="orb")) == {
        "high_conf_det_threshold": 0.25,
        "track_activation_threshold": 0.25,
        "lost_track_buffer": 30,
        "minimum_iou_threshold_first_assoc": 0.4,
        "enable_cmc": True,
        "cmc_method": "orb",
    }
    assert "cmc_method" not in library_options(settings("botsort", gmc_method="none"))


@pytest.mark.parametrize("kind", KINDS)
def test_two_objects_that_cross_keep_their_ids(library, kind):
    found = ids_of(LibraryTracker(settings(kind), 10.0), crossing())
    assert found[19] == found[6] == [1, 2]
    low = found[9][0]  # ocsort leaves low scores out
    assert low == (0 if kind == "ocsort" else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_objects_are_found_again_after_frames_without_them_or_dropped_frames(library, kind):
    unseen = ids_of(LibraryTracker(settings(kind), 10.0), crossing(missing=(6, 7)))
    assert unseen[7] == []
    assert unseen[13] == unseen[5] == [1, 2]
    dropped = [one for one in crossing() if one[0] not in {6, 7}]
    assert ids_of(LibraryTracker(settings(kind), 10.0), dropped)[13] == [1, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_the_library_used_directly(library, kind):
    supervision = pytest.importorskip("supervision")
    classes = {
        "bytetrack": library.ByteTrackTracker,
        "ocsort": library.OCSORTTracker,
        "botsort": library.BoTSORTTracker,
    }
    direct = classes[kind](frame_rate=10.0, **library_options(settings(kind)))
    found = ids_of(LibraryTracker(settings(kind), 10.0), crossing(missing=(6,)))
    for number, rows in crossing(missing=(6,)):
        values = rows.numpy()
        detections = supervision.Detections(
            xyxy=values[:, :4], confidence=values[:, 4], class_id=values[:, 5].astype(int)
        )
        tracked = direct.update(detections, timestamp=number / 10)
        expected = {
            tuple(box): int(one) + 1
            for box, one in zip(tracked.xyxy, tracked.tracker_id, strict=True)
        }
        ours = {tuple(box): one for box, one in zip(values[:, :4], found[number], strict=True)}
        assert ours == {box: expected.get(box, 0) for box in ours}
