"""Keys for results of many images: the share of a process, and keys without effect."""

import pytest

from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.many_images import parse_shard
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.core.errors import UsageError


def settings(**keys):
    return settings_from_pairs(PredictSettings, {"source": "images", **keys})


@pytest.mark.parametrize(("text", "share"), [("0/1", (0, 1)), ("3/4", (3, 4)), (" 1/12 ", (1, 12))])
def test_a_share_is_counted_from_zero(text, share):
    assert parse_shard(text) == share


@pytest.mark.parametrize("text", ["4/4", "0/0", "-1/4", "1", "a/b", "1/2/3", "", "1.0/4"])
def test_other_shares_are_refused(text):
    with pytest.raises(UsageError, match="expected i/n with i from 0 to n-1"):
        settings(out="results", shard=text)


@pytest.mark.parametrize("keys", [{"shard": "0/2"}, {"resume": True}, {"rows": "parquet"}])
def test_keys_without_out_are_refused(keys):
    with pytest.raises(UsageError, match=f"{next(iter(keys))} has no effect without out=FOLDER"):
        settings(**keys)


@pytest.mark.parametrize("key", ["save", "save_txt", "save_crop", "json", "exist_ok"])
def test_other_outputs_are_refused(key):
    with pytest.raises(UsageError, match=f"{key} has no effect with out="):
        settings(out="results", **{key: True})


def test_images_that_nobody_asked_for_are_no_reason_to_refuse():
    assert settings(out="results").save
    assert settings(out="results", save=False).out == "results"


def test_json_is_off_an_array_or_lines():
    assert [settings(json=value).json for value in ("false", "true", "lines")] == [
        False,
        True,
        "lines",
    ]
    with pytest.raises(UsageError, match="did you mean lines"):
        settings(json="line")
