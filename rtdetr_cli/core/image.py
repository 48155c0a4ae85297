"""Read images as upright 8-bit RGB, resize them to the input size of the network, write images.

Training, validation and prediction all use these functions, so that they see the same pixels.
"""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from rtdetr_cli.core.encoding import encoding_of
from rtdetr_cli.core.errors import DataError, UsageError
from rtdetr_cli.core.files import atomic_write, reason_of, refuse_special, user_path
from rtdetr_cli.core.opencv import cv2

if TYPE_CHECKING:
    from torch import Tensor

Pixels = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset(
    {".apng", ".avif", ".avifs", ".bmp", ".bw", ".dib", ".gif", ".heic", ".heif", ".hif", ".icb"}
    | {".ico", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx"}
    | {".mpo", ".pbm", ".pcx", ".pfm", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".qoi", ".rgb"}
    | {".rgba", ".sgi", ".tga", ".tif", ".tiff", ".vda", ".vst", ".webp"}
)
"""Lower-case suffixes that count as images everywhere: those of _FORMATS. A file in a format that
this Pillow cannot open (HEIF without its plug-in) is an error that names it, never passed over."""

_HEIF_SUFFIXES = {".heic", ".heif", ".hif"}
_FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM"),
    *("PSD", "QOI", "SGI", "TGA", "TIFF", "WEBP"),
)
"""Formats that Pillow may detect, independent of the suffix. EPS and WMF are excluded: for these it
runs Ghostscript or the Windows interpreter on the file."""
_UNDECODABLE = (
    *(OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError),
    *(RuntimeError, MemoryError),  # a damaged AVIF; an implausibly large header
)
_EXIF_ORIENTATION = 0x0112
_TURNED = {5, 6, 7, 8}
"""EXIF orientations that exchange width and height."""
MAX_MEGAPIXELS = "RTDETR_MAX_MEGAPIXELS"
"""Environment variable: size of the largest image that is decoded, 178 by default."""
_ANIMATED = {"AVIF", "GIF", "PNG", "WEBP"}
"""Formats whose further images are frames in time; those of TIFF and MPO are pages and previews."""
_STRIP_PIXELS = 1 << 24
"""Pixels of an image that are converted at once."""
_SHORTEST_MS, _UNKNOWN_MS = 20.0, 100.0
"""Browsers show a frame of less than 20 ms for 100 ms, as most such files mean none."""


def images_in(folder: str) -> list[Path]:
    """List the images of a folder, without subfolders, sorted by name; `~` is expanded."""
    return sorted(path for path in user_path(folder).glob("*") if has_image_name(path))


def has_image_name(path: Path) -> bool:
    """Whether a file of a folder counts as an image; hidden ones do not."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def read_image(path: str | Path) -> Pixels:
    """Read the first frame of an image, (H, W, 3) uint8 RGB, upright.

    Raises:
        DataError: the file is missing, empty, truncated, not an image, or above the limit of
            megapixels (178, or RTDETR_MAX_MEGAPIXELS).
    """
    with _opened(path) as image:
        return to_rgb(image)


class ImageFrames:
    """The frames of an image file, one of a still image, every one of an animation.

    Attributes:
        total: number of frames; None if it cannot be found, because the file is damaged.
        is_animated: whether there is a second one.
        further_pages: pages after the first of a file that is no animation; they are not read.
        encoding: of a still image; None of an animation.
        num_bytes: memory of the pixels of a frame.
    """

    def __init__(self, path: str | Path, content: bytes | None = None) -> None:
        """Open a file, or `content`, which messages name `path`.

        Raises:
            DataError: as `read_image`.
        """
        self._path = path
        with _decoding(self._path):
            self._image = _open(path, content)
        try:
            with _decoding(self._path):
                frames: int | None = int(getattr(self._image, "n_frames", 1))
        except DataError:
            frames = None
        self.num_bytes = 3 * self._image.width * self._image.height
        may_move = self._image.format in _ANIMATED
        self.is_animated = may_move and frames != 1
        self.total = frames if may_move else 1
        self.further_pages = 0 if may_move or frames is None else frames - 1
        self.encoding = None if self.is_animated else encoding_of(self._image)

    def __iter__(self) -> Iterator[tuple[Pixels, float]]:
        """Yield (H, W, 3) uint8 RGB, upright, and the seconds for which a frame is shown.

        Raises:
            DataError: a frame cannot be decoded; those before it have been yielded.
        """
        with self._image:
            for index in count() if self.is_animated else range(1):
                if index == self.total:
                    return
                with _decoding(self._path):
                    if index:
                        self._image.seek(index)
                    pixels = to_rgb(self._image)
                    shown_ms = float(self._image.info.get("duration") or 0)
                yield pixels, (_UNKNOWN_MS if shown_ms < _SHORTEST_MS else shown_ms) / 1000


class ImageHeader(NamedTuple):
    """What the header of an image says.

    Attributes:
        format: as Pillow names it: JPEG, PNG, MPO...
        size_hw: height and width of the upright image, pixels.
        orientation: of EXIF, 1 is upright.
    """

    format: str
    size_hw: tuple[int, int]
    orientation: int


def read_header(path: str | Path) -> ImageHeader:
    """Read the header of an image, without its pixels; raises as `read_image`."""
    with _opened(path) as image:
        width, height = image.size
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
        size_hw = (width, height) if orientation in _TURNED else (height, width)
        return ImageHeader(image.format or "", size_hw, orientation)


def read_image_size(path: str | Path) -> tuple[int, int]:
    """Read (height, width) of the upright image from its header alone."""
    return read_header(path).size_hw


def is_turned(path: str | Path) -> bool:
    """Whether the EXIF data of an image exchange its width and height."""
    return read_header(path).orientation in _TURNED


def to_rgb(image: Image.Image) -> Pixels:
    """Convert a Pillow image of any mode to (H, W, 3) uint8 RGB, upright; alpha is dropped."""
    if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    rows = max(1, _STRIP_PIXELS // max(1, image.width))
    if rows < image.height:
        return _strips_to_rgb(image, rows)
    if image.mode.startswith("I"):  # 16-bit; Pillow's conversion would clip to white
        gray = np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8
        return np.repeat(gray.astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("float pixels have no fixed range; save it with 8 or 16 bits")
    if image.mode == "P":
        image = image.convert("RGBA")  # direct conversion warns about transparent entries
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.array(image)


def _strips_to_rgb(image: Image.Image, rows: int) -> Pixels:
    """Convert a large image so many rows at a time: Pillow would hold three more copies of it."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, rows):
        strip = pixels[top : top + rows]
        strip[:] = to_rgb(image.crop((0, top, image.width, top + len(strip))))
    return pixels


def resize_image(
    image: Pixels, size_hw: tuple[int, int], antialias: bool, exact: bool = True
) -> Pixels:
    """Stretch (H, W, 3) uint8 to `size_hw`.

    Args:
        image: pixels.
        size_hw: target height and width.
        antialias: True: bilinear of Pillow, as in the official code; False: bilinear of OpenCV, as
            in Ultralytics.
        exact: False: use PyTorch's port of Pillow's filter, four times as fast and at most one
            level of 255 off; for training only.
    """
    height, width = size_hw
    if image.shape[:2] == size_hw:
        return image
    if not antialias:
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(resized, dtype=np.uint8)
    if exact:
        bilinear = Image.Resampling.BILINEAR
        return np.array(Image.fromarray(image).resize((width, height), bilinear))
    import torch
    from torch.nn import functional

    channels_last = torch.from_numpy(image)[None].permute(0, 3, 1, 2)
    stretched = functional.interpolate(channels_last, size_hw, mode="bilinear", antialias=True)
    return stretched[0].permute(1, 2, 0).contiguous().numpy()


def to_tensor(image: Pixels) -> Tensor:
    """(H, W, 3) uint8 to (3, H, W) float32 in 0..1."""
    import torch

    return torch.from_numpy(to_planes(image))


def to_planes(image: Pixels) -> npt.NDArray[np.float32]:
    """(H, W, 3) uint8 to (3, H, W) float32 in 0..1."""
    planes = np.array(cv2.split(image), np.float32)
    planes /= 255
    return planes


def swap_red_blue(image: Pixels) -> Pixels:
    """(H, W, 3) uint8 RGB to BGR, or back; ten times as fast as a reversed view in NumPy."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), dtype=np.uint8)


def write_image(path: Path, image_bgr: Pixels) -> None:
    """Encode by the suffix of `path` (JPEG without one) and write atomically.

    Raises:
        UsageError: the suffix is of no image format, or the image is empty or too large for it.
    """
    try:
        encoded, data = cv2.imencode(path.suffix or ".jpg", image_bgr)
    except cv2.error as error:
        encoded, reason = False, error.err
    else:
        reason = "the encoder failed"
    if not encoded:
        height, width = image_bgr.shape[:2]
        raise UsageError(f"cannot write {width}x{height} pixels as {path}: {reason}")
    with atomic_write(path) as temporary:
        temporary.write_bytes(data.tobytes())


def max_pixels() -> int:
    """The size of the largest image that is decoded; a limit of the user is passed to Pillow.

    Raises:
        UsageError: RTDETR_MAX_MEGAPIXELS is no such number.
    """
    value = os.environ.get(MAX_MEGAPIXELS)
    if value:
        if not (value.isdecimal() and 0 < int(value) < 10**6):
            raise UsageError(
                f"{MAX_MEGAPIXELS}={value}: expected a number of megapixels, such as 1000"
            )
        Image.MAX_IMAGE_PIXELS = int(value) * 10**6 // 2  # Pillow refuses above twice this number
    return 2 * (Image.MAX_IMAGE_PIXELS or 0)


@cache
def _register_heif() -> None:
    """Let Pillow open HEIF, if pillow-heif is installed."""
    if find_spec("pillow_heif") is not None:
        import_module("pillow_heif").register_heif_opener()


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """Open with Pillow without warnings; convert its exceptions to DataError."""
    with _decoding(path), _open(path) as image:
        yield image


def _open(path: str | Path, content: bytes | None = None) -> Image.Image:
    refuse_special(path, DataError)
    max_pixels()
    Image.preinit()  # BMP, GIF, JPEG, PNG and PPM; the other 40 modules take 30 ms
    try:
        return _open_known(path, content)
    except UnidentifiedImageError:
        _register_heif()
        Image.init()
        return _open_known(path, content)


def _open_known(path: str | Path, content: bytes | None) -> Image.Image:
    known = [kind for kind in _FORMATS if kind in Image.OPEN]
    return Image.open(path if content is None else io.BytesIO(content), formats=known)


class _Silence:
    """No warnings while at least one thread is inside.

    `catch_warnings` in each of several threads could restore their filters in the wrong order.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.__exit__(None, None, None)


_silence = _Silence()


@contextmanager
def _decoding(path: str | Path) -> Iterator[None]:
    try:
        with _silence:
            yield
    except FileNotFoundError:
        raise DataError(f"{path}: no such image") from None
    except _UNDECODABLE as error:
        raise DataError(f"{path}: cannot be read as an image ({_reason(path, error)})") from error


def _reason(path: str | Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        path = Path(path)
        is_heif = path.suffix.lower() in _HEIF_SUFFIXES and "HEIF" not in Image.OPEN
        needs = "; HEIF needs `pip install pillow-heif`" if is_heif else ""
        is_empty = path.exists() and not path.stat().st_size
        return "the file is empty" if is_empty else f"unknown image format{needs}"
    if isinstance(error, Image.DecompressionBombError):
        limit = max_pixels() // 10**6
        return (
            f"more than {limit} megapixels; {MAX_MEGAPIXELS}=1000 sets the limit, and `rtdetr "
            "predict tiles=1000` reads TIFF of any size"
        )
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, OSError) and error.errno:
        return reason_of(error)
    return str(error).splitlines()[0] if str(error) else type(error).__name__
