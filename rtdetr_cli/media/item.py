"""What every source yields: images and frames, or the error of one that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from rtdetr_cli.core.encoding import Encoding
from rtdetr_cli.core.image import Pixels
from rtdetr_cli.media.large_image import LargeImage

LARGE_BYTES = 1 << 27
"""Memory of an image, of which several at once would be too much."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A video, an animation or a stream: what its frames have in common."""

    path: str
    """The file, or the address without a password."""
    fps: float
    """Mean number of frames that are read per second of the clip."""
    total: int | None = None
    """Number of frames that will be read, from the file's header; None if it is unknown."""
    is_live: bool = False
    """Whether it ends only when it is interrupted."""


class SourceImage(NamedTuple):
    """One image or frame of a source: its pixels, or the error."""

    path: str
    image: Pixels | None
    """(H, W, 3) uint8 RGB, upright."""
    error: str = ""
    frame: int | None = None
    """Number of the frame in its clip, from 1; None for a still image."""
    time_s: float | None = None
    """Seconds from the start of the clip."""
    clip: Clip | None = None
    """The clip of a frame, and of an error inside of it."""
    encoding: Encoding | None = None
    """Of the file of a still image; None for pixels in memory."""
    large: LargeImage | None = None
    """The file of an image that is read by parts; `image` is black then, of its size."""


Reading: TypeAlias = "Iterator[SourceImage | None]"
"""An image or the frames of a clip. None comes before a large image is decoded, so that who reads
ahead can wait."""
