"""Images for comparing and calibrating exports: from a data set, a folder, or drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.console import warn
from rtdetr_cli.core.image import Pixels, images_in, read_image, resize_image, to_tensor
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.selection import take_images
from rtdetr_cli.data.shapes import draw_image
from rtdetr_cli.data.splits import load_data, open_split

NUM_IMAGES = 8
MOST_IMAGES, FEW_IMAGES = 300, 100
"""For calibration: the number taken at most, and the number below which a warning is printed."""


@dataclass(frozen=True)
class Images:
    """Images as pixels or as files, which are read on demand.

    Attributes:
        sources: paths or (H, W, 3) RGB images.
        truth: labels in the same order, if any.
        origin: human-readable source.
    """

    sources: Sequence[Path | Pixels]
    truth: DetectionDataset | None = None
    origin: str = "drawn by rtdetr"

    def read(self, start: int, stop: int) -> list[Pixels]:
        """Pixels of the images in a range."""
        chosen = self.sources[start:stop]
        return [read_image(one) if isinstance(one, Path) else one for one in chosen]


def find_images(data: str | None, count: int = NUM_IMAGES, download: bool | None = None) -> Images:
    """Evenly spaced images of a folder or of a data set's val split; drawn ones without `data`."""
    if data is None:
        drawn = (draw_image(np.random.default_rng(n), 480)[0] for n in range(count))
        # Not all square, so that swapping width and height changes the result.
        return Images([image[: 480 - 24 * (n % 8)] for n, image in enumerate(drawn)])
    paths = images_in(data)
    if paths:
        return Images([paths[n] for n in evenly(len(paths), count)], origin=data)
    dataset = open_split(load_data(data, download), "val")
    truth = take_images(dataset, evenly(len(dataset), count))
    has_labels = truth.num_boxes > 0
    return Images([one.path for one in truth.records], truth if has_labels else None, data)


def find_calibration(data: str, compared: Images, download: bool | None = None) -> Images:
    """At most 300 evenly spaced images: of a folder or of a data set's train, else val, split."""
    paths = images_in(data)
    name = data
    if not paths:
        config = load_data(data, download)
        split = "train" if config.train else "val"
        paths = [one.path for one in open_split(config, split).records]
        name = f"{data}, {split}"
    chosen = [paths[n] for n in evenly(len(paths), MOST_IMAGES)]
    if len(chosen) < FEW_IMAGES:
        warn(f"only {len(chosen)} calibration images; use at least {FEW_IMAGES}")
    if set(chosen) & set(compared.sources):
        warn(f"calibration and comparison share images of {data}: the verdict is optimistic")
    return Images(chosen, origin=name)


def evenly(available: int, count: int) -> list[int]:
    """At most `count` evenly spaced positions, including the first and the last."""
    places = np.linspace(0, available - 1, min(count, available))
    return [int(place) for place in places.round()]


def prepare(image: Pixels, preprocessing: Preprocessing) -> Tensor:
    """(3, H, W) float RGB in 0..1."""
    return to_tensor(resize_image(image, preprocessing.size_hw, preprocessing.antialias))
