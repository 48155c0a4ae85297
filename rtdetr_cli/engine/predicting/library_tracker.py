"""The algorithms of the package trackers (Roboflow, Apache-2.0), for tracking.py.

ByteTrack: arXiv 2110.06864. OC-SORT: arXiv 2203.14360. BoT-SORT: arXiv 2206.14651, here without
its network for appearance. The library is imported on use.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdetr_cli.config.settings.track import TrackSettings
from rtdetr_cli.core.boxes import Boxes
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.core.image import Pixels
from rtdetr_cli.engine.predicting.tracking import Trackers


def open_trackers(settings: TrackSettings, persist: bool = False) -> Trackers:
    """The trackers of a run, none of which has seen a frame.

    Args:
        settings: of the run.
        persist: continue with the same tracks from file to file and from call to call.

    Raises:
        BackendError: the library is not installed.
    """
    if find_spec("trackers") is None:
        raise BackendError(
            f"tracker={settings.tracker} needs the package trackers: "
            "pip install 'rtdetr-cli[track]'"
        )
    return Trackers(partial(LibraryTracker, settings), persist)


class LibraryTracker:
    """A tracker of the library for one sequence."""

    def __init__(self, settings: TrackSettings, fps: float) -> None:
        """Open a tracker.

        Args:
            settings: the algorithm and its options.
            fps: frames per second, in which the library counts its steps.
        """
        library = import_module("trackers")
        self._detections = import_module("supervision").Detections
        self._uses_image = settings.tracker == "botsort" and settings.gmc_method != "none"
        kinds = {
            "bytetrack": library.ByteTrackTracker,
            "ocsort": library.OCSORTTracker,
            "botsort": library.BoTSORTTracker,
        }
        self._tracker = kinds[settings.tracker](frame_rate=fps, **library_options(settings))

    def update(self, boxes: Boxes, image_bgr: Pixels, time_s: float) -> NDArray[np.int64]:
        """See Tracker.update."""
        boxes = boxes.numpy()
        found = self._detections(
            xyxy=boxes.xyxy,
            confidence=boxes.conf,
            class_id=np.asarray(boxes.cls, np.int64),
            data={"row": np.arange(len(boxes))},  # the library changes their order
        )
        frame = image_bgr if self._uses_image else None
        tracked = self._tracker.update(found, frame=frame, timestamp=time_s)
        ids = np.zeros(len(boxes), np.int64)
        if len(tracked):
            ids[tracked.data["row"]] = tracked.tracker_id + 1
        return ids


def library_options(settings: TrackSettings) -> dict[str, Any]:
    """The arguments of the library's class; what is None has the library's own value."""
    iou = {"botsort": "minimum_iou_threshold_first_assoc"}
    options: dict[str, Any] = {
        "high_conf_det_threshold": settings.track_high_thresh,
        "lost_track_buffer": settings.track_buffer,
        "minimum_consecutive_frames": settings.min_frames,
        iou.get(settings.tracker, "minimum_iou_threshold"): settings.match_iou,
    }
    if settings.tracker != "ocsort":
        start = settings.new_track_thresh
        options["track_activation_threshold"] = (
            settings.track_high_thresh if start is None else start
        )
    if settings.tracker == "botsort":
        options["enable_cmc"] = settings.gmc_method != "none"
        options["cmc_method"] = None if settings.gmc_method == "none" else settings.gmc_method
    return {key: value for key, value in options.items() if value is not None}
