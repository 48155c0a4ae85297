"""Tracks that persist from call to call, and the source of a call."""

import pytest

from rtdetr_cli.config.settings.track import TrackSettings
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.engine.predicting import calls
from rtdetr_cli.engine.predicting.calls import PersistentTracks, given_source
from rtdetr_cli.engine.predicting.tracking import Trackers


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch):
    monkeypatch.setattr(calls, "open_trackers", lambda settings, persist=False: Trackers(None))


def settings(**keys):
    return TrackSettings(source="x", **keys)


def test_calls_with_persist_share_their_trackers_until_one_without():
    tracks = PersistentTracks()
    first = tracks.trackers(settings(), persist=True)
    assert tracks.trackers(settings(conf=0.3, save_mot=True), persist=True) is first
    assert tracks.trackers(settings(), persist=False) is not first
    assert tracks.trackers(settings(), persist=True) is not first


def test_another_tracker_cannot_continue_the_tracks():
    tracks = PersistentTracks()
    tracks.trackers(settings(track_buffer=60), persist=True)
    with pytest.raises(UsageError, match="track_buffer=30, but persist=True continues tracks of"):
        tracks.trackers(settings(), persist=True)


def test_a_call_without_source_names_the_mode():
    with pytest.raises(UsageError, match="track needs a source"):
        given_source(None, "track")
