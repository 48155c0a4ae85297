"""Translate `tracker=bytetrack.yaml` of Ultralytics: the name alone, or the keys of such a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtdetr_cli.core.bounded_text import show, show_key
from rtdetr_cli.core.console import say
from rtdetr_cli.core.errors import UsageError, nearest
from rtdetr_cli.core.files import user_path

_SAME = {"track_high_thresh", "new_track_thresh", "track_buffer", "gmc_method"}
_APPEARANCE = {"proximity_thresh", "appearance_thresh", "model"}
"""Keys that only with_reid uses."""
_KNOWN = {*_SAME, *_APPEARANCE, "tracker_type", "track_low_thresh", "match_thresh"}
_KNOWN |= {"fuse_score", "with_reid"}


def translate_tracker(value: object, context: Mapping[str, Any]) -> dict[str, object]:
    """The keys of ours for a value of `tracker`.

    Args:
        value: the name of an algorithm, or a YAML file; one that does not exist counts as a name.
        context: all keys that are given; those of ours override those of the file.

    Raises:
        UsageError: the file has an unknown key, or asks for something that is not supported.
    """
    name = str(value)
    if Path(name).suffix.lower() not in {".yaml", ".yml"}:
        return {"tracker": name.lower()}
    if not user_path(name).is_file():
        return {"tracker": Path(name).stem.lower()}
    from rtdetr_cli.config.load import load_yaml  # yaml would slow --help

    keys = _keys(load_yaml(name), name)
    return {key: one for key, one in keys.items() if key == "tracker" or key not in context}


def _keys(values: dict[str, Any], file: str) -> dict[str, object]:
    """Ours for the keys of a file; what has no effect is printed."""
    for key in values:
        if key not in _KNOWN:
            hint = nearest(show_key(key), _KNOWN)
            raise UsageError(f"{file}: {show_key(key)} is not a key of a tracker{hint}")
    if values.get("with_reid"):
        raise UsageError(
            f"{file}: with_reid=true is not supported: appearance needs another network, which "
            "would be downloaded; set it to false"
        )
    tracker = str(values.get("tracker_type")).lower()
    keys: dict[str, object] = {"tracker": tracker}
    keys |= {key: values[key] for key in values if key in _SAME}
    if "track_low_thresh" in values:
        keys["conf"] = values["track_low_thresh"]
    if "match_thresh" in values:
        keys["match_iou"] = _similarity(values["match_thresh"], file)
    if tracker == "ocsort":
        keys.pop("new_track_thresh", None)
    if tracker != "botsort":
        keys.pop("gmc_method", None)
    _report(values, tracker, file)
    return keys


def _similarity(distance: object, file: str) -> float:
    """The least IoU for the greatest distance, 1 - IoU."""
    if (
        isinstance(distance, bool)
        or not isinstance(distance, int | float)
        or not 0 <= distance <= 1
    ):
        raise UsageError(f"{file}: match_thresh must be from 0 to 1, found {show(distance)}")
    return round(1 - distance, 6)


def _report(values: dict[str, Any], tracker: str, file: str) -> None:
    """Print which keys have no effect: of botsort all but appearance have one."""
    unused = sorted(_APPEARANCE & values.keys())
    if values.get("fuse_score") is not (tracker == "botsort") and "fuse_score" in values:
        unused.append("fuse_score")  # IoU times score: always in botsort, never in the others
    if tracker != "botsort" and "gmc_method" in values:
        unused.append("gmc_method")
    if tracker == "ocsort" and "new_track_thresh" in values:
        unused.append("new_track_thresh")
    if unused:
        say(f"{file}: no effect with {tracker} here: {', '.join(unused)}")
