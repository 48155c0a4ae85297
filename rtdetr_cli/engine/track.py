"""Tracking: prediction whose detections get the ids of their objects."""

from __future__ import annotations

from rtdetr_cli.config.settings.track import TrackSettings
from rtdetr_cli.engine.predict import predict
from rtdetr_cli.engine.predicting.library_tracker import open_trackers


def track(settings: TrackSettings) -> int:
    """Run the command; output and exit code are those of `predict`.

    Raises:
        BackendError: the package trackers is not installed.
        DataError: no image of the source could be read.
    """
    return predict(settings, open_trackers(settings))
