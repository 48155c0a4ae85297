"""`tracker=` of Ultralytics: names of its files, and files of that form."""

import pytest

from rtdetr_cli.config.foreign_trackers import translate_tracker
from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.track import TrackSettings
from rtdetr_cli.core.errors import UsageError


@pytest.fixture
def file(tmp_path):
    def write(**keys):
        path = tmp_path / "my_tracker.yaml"
        path.write_text("".join(f"{key}: {value}\n" for key, value in keys.items()))
        return str(path)

    return write


@pytest.mark.parametrize("name", ["botsort", "botsort.yaml", "BoTSORT.yml"])
def test_a_name_with_or_without_suffix_is_the_tracker(name):
    assert translate_tracker(name, {}) == {"tracker": "botsort"}


def test_a_file_sets_the_keys_of_the_same_meaning(file, capsys):
    keys = {"tracker_type": "bytetrack", "track_high_thresh": 0.3, "track_low_thresh": 0.15}
    keys |= {"new_track_thresh": 0.4, "track_buffer": 60, "match_thresh": 0.8, "fuse_score": False}
    settings = settings_from_pairs(TrackSettings, {"source": "x", "tracker": file(**keys)})
    assert (settings.tracker, settings.conf) == ("bytetrack", 0.15)
    assert (settings.track_high_thresh, settings.new_track_thresh) == (0.3, 0.4)
    assert (settings.track_buffer, settings.match_iou) == (60, 0.2)  # their distance is 1 - IoU
    assert capsys.readouterr().err == ""


def test_keys_given_beside_a_file_override_it(file):
    path = file(tracker_type="bytetrack", track_low_thresh=0.15, track_buffer=60)
    settings = settings_from_pairs(TrackSettings, {"source": "x", "tracker": path, "conf": "0.3"})
    assert (settings.conf, settings.track_buffer) == (0.3, 60)


def test_what_has_no_effect_is_printed(file, capsys):
    keys = {"tracker_type": "ocsort", "new_track_thresh": 0.4, "fuse_score": True}
    keys |= {"gmc_method": "sparseOptFlow", "with_reid": False, "model": "auto"}
    assert translate_tracker(file(**keys), {}) == {"tracker": "ocsort"}
    err = " ".join(capsys.readouterr().err.split())
    assert "no effect with ocsort here: model, fuse_score, gmc_method, new_track_thresh" in err


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"with_reid": True}, "appearance needs another network"),
        ({"track_hight_thresh": 0.3}, "did you mean track_high_thresh"),
        ({"match_thresh": 8}, "match_thresh must be from 0 to 1, found 8"),
    ],
)
def test_a_wrong_file_ends_with_one_sentence(file, keys, reason):
    with pytest.raises(UsageError, match=reason):
        translate_tracker(file(tracker_type="botsort", **keys), {})


def test_a_file_without_tracker_type_or_with_an_unknown_one_is_refused(file):
    for keys in ({"track_buffer": 30}, {"tracker_type": "sort"}):
        with pytest.raises(UsageError, match="tracker must be one of"):
            settings_from_pairs(TrackSettings, {"source": "x", "tracker": file(**keys)})
