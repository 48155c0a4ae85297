"""Settings of `rtdetr track`."""

import pytest

from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.config.settings.track import TrackSettings
from rtdetr_cli.core.errors import UsageError


def read(**pairs):
    return settings_from_pairs(TrackSettings, {"source": "a.mp4", **pairs})


def test_track_has_the_keys_of_predict_and_a_lower_score():
    settings = read()
    assert isinstance(settings, PredictSettings)
    assert settings.conf == 0.1
    assert (settings.tracker, settings.name) == ("bytetrack", "track")


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ({"tracker": "bytetracker"}, "must be one of bytetrack, ocsort, botsort"),
        ({"tracker": "deepocsort"}, "with a network of its own, which would be downloaded"),
        ({"tracker": "tracktrack"}, "the library trackers has no such tracker"),
        ({"tracker": "ocsort", "new_track_thresh": "0.5"}, "track_high_thresh is the score"),
        ({"tracker": "ocsort", "gmc_method": "orb"}, "no effect with tracker=ocsort"),
        ({"gmc_method": "none"}, "no effect with tracker=bytetrack"),
        ({"track_buffer": "-1"}, "track_buffer must be at least 0"),
    ],
)
def test_keys_without_effect_and_other_trackers_are_refused_with_the_reason(pairs, reason):
    with pytest.raises(UsageError, match=reason):
        read(**pairs)
