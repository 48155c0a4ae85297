"""Training augmentation of the official v2 recipe, with a single resampling of the pixels.

Zoom-out and IoU crop only move a window over the image; the window is then cropped, padded and
resized in one step, and colors are distorted at the final size. All randomness comes from one
generator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torchvision.ops import box_iou

from rtdetr_cli.core.image import Pixels, resize_image
from rtdetr_cli.core.opencv import cv2
from rtdetr_cli.data.dataset import Bools, Floats, Ints

Window = tuple[int, int, int, int]
"""Left, top, right, bottom in image pixels; it may extend beyond the image."""

ZOOM_OUT_RANGE = (1.0, 4.0)
CROP_OPTIONS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
CROP_TRIALS = 40
CROP_SCALE = (0.3, 1.0)
CROP_ASPECT = (0.5, 2.0)
MIN_BOX_PIXELS = 1.0


@dataclass(frozen=True)
class AugmentConfig:
    """Probability of each augmentation, 0..1; the defaults are the official ones."""

    photometric: float = 0.5
    """Brightness, contrast, saturation, hue and channel order, each independently."""
    zoom_out: float = 0.5
    """Place the image on a black canvas up to four times as wide and high."""
    iou_crop: float = 0.8
    """Crop with a random minimum IoU with at least one box."""
    flip: float = 0.5
    """Horizontal flip."""

    mosaic: float = 0.0
    """Four images in one, instead of zoom-out and IoU crop."""
    mixup: float = 0.0
    """Blend the images of a batch in pairs."""

    def weak(self) -> AugmentConfig:
        """The flip only, for the last epochs."""
        return AugmentConfig(photometric=0.0, zoom_out=0.0, iou_crop=0.0, flip=self.flip)

    def sparse(self) -> AugmentConfig:
        """Without mosaic and mixup."""
        return replace(self, mosaic=0.0, mixup=0.0)


def augment(
    image: Pixels,
    boxes_xyxy: Floats,
    size_hw: tuple[int, int],
    config: AugmentConfig,
    rng: np.random.Generator,
) -> tuple[Pixels, Floats, Ints]:
    """Make a training sample.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes_xyxy: (N, 4) pixels of the image.
        size_hw: size of the sample.
        config: probabilities of the augmentations.
        rng: source of all randomness.

    Returns:
        The sample (*size_hw, 3) uint8; the remaining boxes, (M, 4) cxcywh in fractions; and
        their (M,) indices into `boxes_xyxy`.
    """
    height, width = image.shape[:2]
    window: Window = (0, 0, width, height)
    kept = np.ones(len(boxes_xyxy), bool)
    if rng.random() < config.zoom_out:
        window = zoom_out_window(window, rng)
    if rng.random() < config.iou_crop:
        window, kept = iou_crop_window(window, boxes_xyxy, rng)
    placement = place_window(window, (height, width), size_hw)
    sample = placement.pixels(image, size_hw, draw_distortion(config.photometric, rng))
    boxes_xyxy = placement.boxes(boxes_xyxy[kept])
    sample, boxes_cxcywh, large = finish_sample(sample, boxes_xyxy, config.flip, rng)
    return sample, boxes_cxcywh, np.flatnonzero(kept)[large]


def finish_sample(
    sample: Pixels, boxes_xyxy: Floats, flip: float, rng: np.random.Generator
) -> tuple[Pixels, Floats, Ints]:
    """Drop boxes below one pixel, convert to fractions and flip at random; see `augment`."""
    large = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2] >= MIN_BOX_PIXELS).all(axis=1)
    boxes_cxcywh = to_fractions(boxes_xyxy[large], sample.shape[:2])
    if rng.random() < flip:
        sample = np.asarray(cv2.flip(sample, 1), dtype=np.uint8)
        boxes_cxcywh[:, 0] = 1 - boxes_cxcywh[:, 0]
    return sample, boxes_cxcywh, np.flatnonzero(large)


def to_fractions(boxes_xyxy: Floats, size_hw: tuple[int, int]) -> Floats:
    """(N, 4) corners in pixels to (N, 4) cxcywh in fractions of the size."""
    corners = boxes_xyxy.reshape(-1, 2, 2) / np.array(size_hw[::-1], np.float32)
    centre, extent = corners.mean(axis=1), corners[:, 1] - corners[:, 0]
    return np.concatenate([centre, extent], axis=1).astype(np.float32)


def zoom_out_window(window: Window, rng: np.random.Generator) -> Window:
    """Draw a window around the image, up to four times as wide and high."""
    _, _, width, height = window
    ratio = rng.uniform(*ZOOM_OUT_RANGE)
    canvas_width, canvas_height = int(width * ratio), int(height * ratio)
    left = int((canvas_width - width) * rng.random())
    top = int((canvas_height - height) * rng.random())
    return (-left, -top, canvas_width - left, canvas_height - top)


def iou_crop_window(
    window: Window, boxes_xyxy: Floats, rng: np.random.Generator
) -> tuple[Window, Bools]:
    """Draw a crop of the window, as torchvision's RandomIoUCrop, and the mask of boxes inside.

    Minimum IoUs are drawn until one of 40 crops reaches it for a box with its center inside, or
    until the drawn option is not to crop.
    """
    everything = np.ones(len(boxes_xyxy), bool)
    while len(boxes_xyxy):
        min_iou = CROP_OPTIONS[rng.integers(len(CROP_OPTIONS))]
        if min_iou >= 1.0:
            break
        crops = _draw_crops(window, rng)  # (T, 4)
        centred, ious = _overlaps(crops, boxes_xyxy)  # (T, N) each
        best = np.where(centred, ious, -1.0).max(axis=1)
        good = np.flatnonzero(centred.any(axis=1) & (best >= min_iou))
        if len(good):
            left, top, right, bottom = crops[good[0]].tolist()
            return (left, top, right, bottom), centred[good[0]]
    return window, everything


def _draw_crops(window: Window, rng: np.random.Generator) -> Ints:
    """Draw (T, 4) crops of the window with a valid aspect ratio, T <= 40."""
    left, top, right, bottom = window
    size = np.array([right - left, bottom - top])
    scale = rng.uniform(*CROP_SCALE, (CROP_TRIALS, 2))
    position = rng.random((CROP_TRIALS, 2))
    crop = (size * scale).astype(np.int64)
    low = np.array([left, top]) + ((size - crop) * position).astype(np.int64)
    aspect = crop[:, 0] / np.maximum(crop[:, 1], 1)
    allowed = (aspect >= CROP_ASPECT[0]) & (aspect <= CROP_ASPECT[1]) & (crop > 0).all(axis=1)
    return np.concatenate([low, low + crop], axis=1)[allowed]


def _overlaps(crops: Ints, boxes_xyxy: Floats) -> tuple[Bools, Floats]:
    """For (T, 4) crops and (N, 4) boxes: (T, N) mask of centers inside and (T, N) IoU."""
    centre = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    centred = (crops[:, None, :2] < centre) & (centre < crops[:, None, 2:])
    ious = box_iou(torch.from_numpy(crops).float(), torch.from_numpy(boxes_xyxy))
    return np.logical_and(centred[..., 0], centred[..., 1]), ious.numpy()


@dataclass(frozen=True)
class Placement:
    """The visible part of the image and its place in the sample, both in whole pixels.

    Boxes use the same map as the pixels, so that rounding costs no accuracy.
    """

    source: Ints
    """(4,) left, top, right, bottom in the image."""
    target: Ints
    """(4,) left, top, right, bottom in the sample; the rest of the sample is black."""

    def pixels(self, image: Pixels, size_hw: tuple[int, int], distortion: Distortion) -> Pixels:
        """Crop, resize, distort and place: (*size_hw, 3) uint8."""
        left, top, right, bottom = self.source.tolist()
        cut = np.ascontiguousarray(image[top:bottom, left:right])
        left, top, right, bottom = self.target.tolist()
        patch = resize_image(cut, (bottom - top, right - left), antialias=True, exact=False)
        patch = distort(patch, distortion)
        if patch.shape[:2] == size_hw:
            return patch
        sample = np.zeros((*size_hw, 3), np.uint8)
        sample[top:bottom, left:right] = patch
        return sample

    def boxes(self, boxes_xyxy: Floats) -> Floats:
        """Map (N, 4) boxes from image to sample pixels, clipped to the visible part."""
        low, high = self.source[:2], self.source[2:]
        scale = (self.target[2:] - self.target[:2]) / (high - low)
        corners = boxes_xyxy.reshape(-1, 2, 2).clip(low, high)
        return (((corners - low) * scale) + self.target[:2]).reshape(-1, 4).astype(np.float32)


def place_window(window: Window, image_hw: tuple[int, int], size_hw: tuple[int, int]) -> Placement:
    """Map the part of the window that shows the image to the pixel grid of the sample."""
    low, high = np.array(window[:2]), np.array(window[2:])
    source = np.array([*np.maximum(low, 0), *np.minimum(high, image_hw[::-1])])
    size = np.array(size_hw[::-1])
    edges = (source.reshape(2, 2) - low) / (high - low) * size
    target_low = np.minimum(edges[0].round().astype(np.int64), size - 1)
    target_high = np.maximum(edges[1].round().astype(np.int64), target_low + 1)
    return Placement(source, np.array([*target_low, *target_high]))


@dataclass(frozen=True)
class Distortion:
    """Color changes in torchvision's order; None leaves a property unchanged."""

    brightness: float | None = None
    contrast: float | None = None
    saturation: float | None = None
    hue: float | None = None
    contrast_first: bool = True
    channels: tuple[int, ...] | None = None


def draw_distortion(probability: float, rng: np.random.Generator) -> Distortion:
    """Draw color changes with the ranges of torchvision's RandomPhotometricDistort."""

    def maybe(low: float, high: float) -> float | None:
        return rng.uniform(low, high) if rng.random() < probability else None

    return Distortion(
        brightness=maybe(0.875, 1.125),
        contrast=maybe(0.5, 1.5),
        saturation=maybe(0.5, 1.5),
        hue=maybe(-0.05, 0.05),
        contrast_first=rng.random() < 0.5,
        channels=tuple(rng.permutation(3).tolist()) if rng.random() < probability else None,
    )


def distort(image: Pixels, distortion: Distortion) -> Pixels:
    """Change the colors of (H, W, 3) uint8 RGB."""
    if distortion.brightness is not None:
        image = _blend_constant(image, distortion.brightness, 0.0)
    if distortion.contrast is not None and distortion.contrast_first:
        image = _adjust_contrast(image, distortion.contrast)
    if distortion.saturation is not None:
        gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        ratio = distortion.saturation
        image = _uint8(cv2.addWeighted(image, ratio, gray, 1 - ratio, 0))
    if distortion.hue is not None:
        image = _adjust_hue(image, distortion.hue)
    if distortion.contrast is not None and not distortion.contrast_first:
        image = _adjust_contrast(image, distortion.contrast)
    if distortion.channels is not None:
        image = np.ascontiguousarray(image[..., distortion.channels])
    return image


def _adjust_contrast(image: Pixels, ratio: float) -> Pixels:
    return _blend_constant(image, ratio, cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0])


def _blend_constant(image: Pixels, ratio: float, constant: float) -> Pixels:
    table = np.clip(np.arange(256) * ratio + constant * (1 - ratio), 0, 255).astype(np.uint8)
    return _uint8(cv2.LUT(image, table))


def _adjust_hue(image: Pixels, turn: float) -> Pixels:
    """Rotate the hue by a fraction of the circle, in float, as 8-bit HSV loses precision."""
    hsv: Floats = np.asarray(cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2HSV), np.float32)
    hsv[..., 0] += turn % 1 * 360  # OpenCV wraps hues above 360, but not those below 0
    return _uint8(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).round())


def _uint8(image: cv2.typing.MatLike) -> Pixels:
    return np.asarray(image, dtype=np.uint8)
