"""What calls of predict, track and embed share: source, log lines, tracks that persist."""

from __future__ import annotations

from collections.abc import Iterator

from rtdetr_cli.config.fields import field_types
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.config.settings.track import TrackSettings
from rtdetr_cli.core.console import say
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.core.results import Results
from rtdetr_cli.engine.predicting.library_tracker import open_trackers
from rtdetr_cli.engine.predicting.lines import describe
from rtdetr_cli.engine.predicting.tracking import Trackers
from rtdetr_cli.media.source import SourceLike

TRACKER_KEYS = (
    field_types(TrackSettings).keys() - field_types(PredictSettings).keys() - {"save_mot"}
)
"""Keys that calls with `persist` cannot change."""


def given_source(source: SourceLike | None, mode: str) -> SourceLike:
    """The source of a call.

    Raises:
        UsageError: there is none.
    """
    if source is None:
        raise UsageError(
            f"{mode} needs a source: a path, folder, address, array, image or tensor, for example "
            'model("bus.jpg") or model(["a.jpg", "b.jpg"])'
        )
    return source


def logged(results: Iterator[Results]) -> Iterator[Results]:
    """Print a line per image on stderr."""
    for number, one in enumerate(results, start=1):
        if isinstance(one, Results):  # callbacks may replace them
            say(f"image {number} {describe(one)}")
        yield one


class PersistentTracks:
    """The tracks with which calls of `track` with persist=True continue."""

    def __init__(self) -> None:
        self._started: tuple[TrackSettings, Trackers] | None = None

    def trackers(self, settings: TrackSettings, persist: bool) -> Trackers:
        """The trackers of a call. One without `persist` forgets the tracks of those with it.

        Raises:
            BackendError: the package trackers is not installed.
            UsageError: other options of the tracker than those of the tracks.
        """
        if not persist:
            self._started = None
            return open_trackers(settings)
        if self._started is None:
            self._started = settings, open_trackers(settings, persist)
        first, trackers = self._started
        for key in sorted(TRACKER_KEYS):
            value, expected = getattr(settings, key), getattr(first, key)
            if value != expected:
                raise UsageError(
                    f"track: {key}={value}, but persist=True continues tracks of {key}={expected}; "
                    "a call without persist forgets them"
                )
        return trackers
