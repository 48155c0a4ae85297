"""Settings of `rtdetr track`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from rtdetr_cli.config.fields import Count, CountFromZero, Fraction, OneOf
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.core.errors import UsageError

_APPEARANCE = "it compares objects with a network of its own, which would be downloaded"
_ABSENT = "the library trackers has no such tracker"
REFUSED_TRACKERS = (
    ("deepocsort", _APPEARANCE),
    ("mcbyte", "it needs the masks of another network, which would be downloaded"),
    ("tracktrack", _ABSENT),
    ("fasttrack", _ABSENT),
    ("boxmot", "its licence is AGPL-3.0"),
)


@dataclass(frozen=True, kw_only=True)
class TrackSettings(PredictSettings):
    """Track objects through videos and streams: each detection gets the id of its object."""

    mode = "track"
    groups: ClassVar[dict[str, str]] = {"tracker": "Tracking", "save_mot": "Output"}

    conf: Fraction | str = 0.1
    """Least score for the tracker: a number, by class (person:0.5,car:0.3), or auto."""
    name: str = "track"

    tracker: Annotated[str, OneOf(("bytetrack", "ocsort", "botsort"), REFUSED_TRACKERS)] = (
        "bytetrack"
    )
    """bytetrack, ocsort, or botsort, which also follows the motion of the camera."""
    track_high_thresh: Fraction = 0.25
    """Score from which detections are matched first; ocsort ignores lower ones."""
    new_track_thresh: Fraction | None = None
    """Score from which a detection without a match starts a track; None: track_high_thresh."""
    track_buffer: CountFromZero = 30
    """Thirtieths of a second for which an object that is not seen keeps its id."""
    match_iou: Fraction | None = None
    """Least IoU of a detection and a predicted box; None: that of the tracker, 0.1 to 0.3."""
    min_frames: Count | None = None
    """Frames after which an object gets its id; None: 2, with ocsort 3."""
    gmc_method: Annotated[str, OneOf(("sparseOptFlow", "orb", "sift", "ecc", "none"))] = (
        "sparseOptFlow"
    )
    """How botsort estimates the motion of the camera: sparseOptFlow, orb, sift, ecc or none."""

    nms: Fraction | None = 0.7
    """Track only the best of boxes with a higher IoU; None: all."""
    agnostic_nms: bool = True
    """With nms: compare boxes of all classes, because an object has one id."""

    save_mot: bool = False
    """Write the tracks of each video as text in the format of the MOT challenge."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tracker == "ocsort" and self.new_track_thresh is not None:
            raise UsageError(
                "track: new_track_thresh has no effect with tracker=ocsort; track_high_thresh is "
                "the score from which its tracks start"
            )
        if self.tracker != "botsort" and self.gmc_method != type(self).gmc_method:
            raise UsageError(f"track: gmc_method has no effect with tracker={self.tracker}")
