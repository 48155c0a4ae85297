"""Images that look the same: a signature of each image, and the pairs among 100,000 of them.

Pairs are found by their low frequencies and verified on thumbnails; duplicates.py reports them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.fft import dctn
from scipy.ndimage import uniform_filter

from rtdetr_cli.core.image import Pixels
from rtdetr_cli.core.opencv import cv2

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

SIDE = 32
"""Height and width of a thumbnail."""
_FREQUENCIES = 8
"""Of each axis of the cosine transform."""
_MIN_SIMILARITY = 0.9
"""Cosine of two spectra. Different images of coco128 reach 0.57, of bccd 0.66; an image saved again
with JPEG quality 10, at a sixth of its size or 30 % brighter has at least 0.95."""
_MIN_CONTRAST = 4.0
"""Standard deviation of a thumbnail, of 255 levels; what is flatter has nothing to compare."""
_MAX_DIFFERENCE = 1.4
"""Largest local difference of a pair: above it, there is another object in the same scene. It keeps
out 99 % of the pairs of a scene with another object, a tenth as high as the image."""
_NOISE = 0.25
"""Local difference that counts as 1 where the image is flat, in standard deviations."""
_SHIFT = 0.7
"""Likewise at edges, in pixels of the thumbnail: a crop by 2 % moves its border by 0.3."""
_ROWS, _COLUMNS = 256, 512
"""Block of the pair search, which fits into the cache of a core; thumbnails are likewise taken in
parts."""


class Signature(NamedTuple):
    """What is kept of a decoded image."""

    digest: bytes
    """SHA-256 of its size and pixels."""
    thumbnail: Pixels
    """(32, 32), gray, the whole image."""


class Pair(NamedTuple):
    """Positions of two images that look the same, first < second."""

    first: int
    second: int
    mirrored: bool
    """Whether one is the other flipped horizontally."""


def image_signature(pixels: Pixels) -> Signature:
    """Return the signature of an upright image, (H, W, 3) uint8 RGB."""
    digest = hashlib.sha256(f"{pixels.shape} ".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    thumbnail = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return Signature(digest.digest(), np.asarray(thumbnail, np.uint8))


class _Block(NamedTuple):
    """Pairs of images `rows` with images `columns`, which are earlier or of an earlier split."""

    rows: slice
    columns: slice
    row_split: int
    column_split: int


class _Best(NamedTuple):
    """The most similar image of each image (N) in each split (S), as far as it is known."""

    similarity: Floats
    partner: npt.NDArray[np.int64]
    mirrored: Bools

    def update(
        self, images: slice, others: slice, split: int, found: Floats, turned: Floats
    ) -> None:
        """Take in the similarities (images, others) of a block, and their antisymmetric part."""
        rows = np.arange(images.start, images.stop)
        column = found.argmax(1)
        at = (np.arange(len(rows)), column)
        better = found[at] > self.similarity[rows, split]
        place = (rows[better], split)
        self.similarity[place] = found[at][better]
        self.partner[place] = others.start + column[better]
        self.mirrored[place] = turned[at][better] < 0

    def pairs(self) -> list[Pair]:
        """Each pair once, in order."""
        images, splits = np.nonzero(self.partner >= 0)
        partners = self.partner[images, splits].tolist()
        mirrored = self.mirrored[images, splits].tolist()
        found = zip(images.tolist(), partners, mirrored, strict=True)
        return sorted({Pair(min(one, two), max(one, two), turned) for one, two, turned in found})


def similar_pairs(thumbnails: Pixels, ends: Sequence[int]) -> list[Pair]:
    """Find near-identical images: saved again, resized, brighter, mirrored, cropped by 2 %.

    All pairs are compared, and of each image the most similar one among the earlier images of its
    split and among each other split is verified, so that the time is bounded where all images show
    one scene.

    Args:
        thumbnails: (N, 32, 32) of all splits, in their order.
        ends: position after the last image of each split; the last one is N.
    """
    symmetric, antisymmetric = _spectra(thumbnails)
    shape = (len(thumbnails), len(ends))
    best = _Best(
        np.full(shape, _MIN_SIMILARITY, np.float32), np.full(shape, -1), np.zeros(shape, bool)
    )
    for rows, columns, row_split, column_split in _blocks(ends):
        same = symmetric[rows] @ symmetric[columns].T
        turned = antisymmetric[rows] @ antisymmetric[columns].T
        similarity = np.abs(turned)  # a mirror image has antisymmetric parts times -1
        similarity += same
        if similarity.max() <= _MIN_SIMILARITY:  # nearly all blocks
            continue
        if row_split == column_split:
            second, first = (np.arange(one.start, one.stop) for one in (rows, columns))
            similarity[first >= second[:, None]] = 0
        else:
            best.update(columns, rows, row_split, similarity.T, turned.T)
        best.update(rows, columns, column_split, similarity, turned)
    return _verified(best.pairs(), thumbnails)


def _spectra(thumbnails: Pixels) -> tuple[Floats, Floats]:
    """Low frequencies of each thumbnail, as unit vectors; zeros without contrast.

    They are multiplied by their frequency. In natural images the amplitude falls with it, so that
    without weights all images with a bright sky would be alike.

    Returns:
        Those that are symmetric from left to right, (N, 32), and the antisymmetric, (N, 32).
    """
    count = np.arange(_FREQUENCIES, dtype=np.float32)
    parts = [
        dctn(part.astype(np.float32), axes=(1, 2))[:, :_FREQUENCIES, :_FREQUENCIES]
        for part in np.array_split(thumbnails, len(thumbnails) // _COLUMNS + 1)
    ]
    weights = np.hypot(count, count[:, None])
    spectra = np.asarray(np.concatenate(parts) * weights, np.float32)
    spectra /= np.maximum(np.linalg.norm(spectra, axis=(1, 2), keepdims=True), 1e-6)
    spectra[thumbnails.std(axis=(1, 2)) < _MIN_CONTRAST] = 0
    shape = (len(spectra), _FREQUENCIES * _FREQUENCIES // 2)
    return spectra[:, :, ::2].reshape(shape), spectra[:, :, 1::2].reshape(shape)


def _blocks(ends: Sequence[int]) -> Iterator[_Block]:
    splits = [*pairwise([0, *ends])]
    for row_split, (start, end) in enumerate(splits):
        for row in range(start, end, _ROWS):
            rows = slice(row, min(row + _ROWS, end))
            for column_split, (low, high) in enumerate(splits[: row_split + 1]):
                last = min(high, rows.stop)
                for column in range(low, last, _COLUMNS):
                    columns = slice(column, min(column + _COLUMNS, last))
                    yield _Block(rows, columns, row_split, column_split)


def _verified(pairs: list[Pair], thumbnails: Pixels) -> list[Pair]:
    """The pairs without another object."""
    kept: list[Pair] = []
    for start in range(0, len(pairs), _COLUMNS):
        part = pairs[start : start + _COLUMNS]
        first, second = (
            thumbnails[[pair[at] for pair in part]].astype(np.float32) for at in (0, 1)
        )
        turned = np.array([pair.mirrored for pair in part])
        second[turned] = second[turned, :, ::-1]
        kept += [pair for pair, same in zip(part, _is_same(first, second), strict=True) if same]
    return kept


def _is_same(first: Floats, second: Floats) -> Bools:
    """Whether thumbnails (N, 32, 32) differ nowhere by more than noise, misalignment and light."""
    first, second = _normalised(first), _normalised(second)
    difference = first - (first * second).mean((1, 2), keepdims=True) * second
    edges = np.minimum(_local(_slope(first)), _local(_slope(second)))
    worst = (_local(difference) / (_NOISE + _SHIFT * edges)).max((1, 2))
    return np.asarray(worst < _MAX_DIFFERENCE)


def _normalised(images: Floats) -> Floats:
    images = images - images.mean((1, 2), keepdims=True)
    return np.asarray(images / images.std((1, 2), keepdims=True))


def _slope(images: Floats) -> Floats:
    down, right = np.gradient(images, axis=(1, 2))
    return np.asarray(np.hypot(down, right))


def _local(images: Floats) -> Floats:
    """Root mean square of 3x3 pixels."""
    return np.asarray(np.sqrt(np.maximum(uniform_filter(images**2, (0, 3, 3)), 0)))
