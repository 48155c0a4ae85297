"""Settings of `rtdetr predict`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from rtdetr_cli.config.confidence import parse_confidence
from rtdetr_cli.config.fields import (
    Batch,
    Count,
    Fraction,
    OneOf,
    Range,
)
from rtdetr_cli.config.settings.many_images import ManyImagesSettings
from rtdetr_cli.config.settings.shared import RunFolderSettings, SpeedSettings
from rtdetr_cli.config.tiling import parse_tiles
from rtdetr_cli.core.errors import UsageError

DEFAULT_CONF = 0.25
"""Also of the classes that thresholds by class leave out."""


@dataclass(frozen=True, kw_only=True)
class PredictSettings(SpeedSettings, RunFolderSettings, ManyImagesSettings):
    """Detect objects in images and videos."""

    mode = "predict"
    groups: ClassVar[dict[str, str]] = {
        "source": "Model and data",
        "conf": "Inference",
        "save": "Output",
        "show_labels": "Appearance of the boxes",
    }

    source: str
    """Image, video, folder, pattern, .txt, .csv or .streams list, URL, camera number, screen, -."""
    vid_stride: Count = 1
    """Use every so many frames of a video or stream, starting with the first."""
    stream_buffer: bool = False
    """Use all frames of a stream, in a queue; by default only the newest one."""

    conf: Fraction | str = DEFAULT_CONF
    """Score threshold: a number, by class (person:0.5,car:0.3), or auto: that of the weights."""
    classes: tuple[int | str, ...] | None = None
    """Classes to keep, names or indices, e.g. person,car or 0,2; None: all."""
    one_label: bool = False
    """Only the best class of each query, so that no box appears under two classes."""
    nms: Fraction | None = None
    """Drop boxes with a higher IoU with a better one of their class, e.g. 0.7; None: no NMS."""
    agnostic_nms: bool = False
    """With nms: compare boxes of all classes."""
    rect: bool = False
    """Shape the input as the image: the longer side of imgsz, the other in multiples of 32."""
    tiles: int | str | None = None
    """Divide large images: auto, columns x rows (4x3) or a side in pixels; None: do not."""
    tile_overlap: Annotated[float, Range(0, 0.8)] = 0.2
    """With tiles: share of a tile that its neighbour sees too; objects should fit into it."""
    batch: Batch = 1
    """Images per batch."""

    name: str = "predict"
    save: bool = True
    """Write annotated images and videos."""
    save_frames: bool = False
    """Write each annotated frame of a video as an image."""
    save_txt: bool = False
    """Write YOLO labels (class x y w h)."""
    save_conf: bool = False
    """Add the score to each line of save_txt."""
    save_crop: bool = False
    """Write a crop of each box as an image."""
    save_json: bool = False
    """Write all detections to predictions.json, as COCO results."""
    show: bool = False
    """Show images, videos and streams in a window; q or Esc ends the run, other keys show the
    next image."""
    json: bool | Annotated[str, OneOf(("lines",))] = False
    """Print the detections as a JSON array; lines: as an object per line, without blanks."""

    show_labels: bool = True
    """Draw class names."""
    show_conf: bool = True
    """Draw scores."""
    show_boxes: bool = True
    """Draw boxes; without them class names and scores remain."""
    line_width: Annotated[int, Range(1, 1000)] | None = None
    """Line width of the boxes in pixels; None: from the image size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.conf, str):
            parse_confidence(self.conf)
        if self.tiles is not None:
            parse_tiles(self.tiles)
        elif self.tile_overlap != type(self).tile_overlap:
            raise UsageError("predict: tile_overlap has no effect without tiles")
        if self.agnostic_nms != type(self).agnostic_nms and self.nms is None:
            raise UsageError(
                f"{self.mode}: agnostic_nms has no effect without nms, for example nms=0.7"
            )
        if self.save_conf and not self.save_txt:
            raise UsageError("predict: save_conf has no effect without save_txt")
