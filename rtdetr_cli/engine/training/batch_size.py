"""`batch=-1`: the largest batch that fits the memory of a CUDA device, from two measured steps.

prepare.py asks before the recipe is resolved, whose schedule follows from the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple

import torch

from rtdetr_cli.config.settings.modes import size_hw
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.console import say
from rtdetr_cli.core.distributed import world_size
from rtdetr_cli.core.errors import BackendError, UsageError
from rtdetr_cli.core.structures import Batch, Target
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.engine.training.optim import build_optimizer, freeze, train_mode
from rtdetr_cli.engine.training.precision import Precision, choose_precision
from rtdetr_cli.engine.training.recipe import Recipe, resolve_recipe
from rtdetr_cli.engine.training.step import loss_terms
from rtdetr_cli.loss.criterion import Criterion
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

AUTO = -1
SHARE = 0.8
"""Of the free memory; the rest is for what two steps do not show, such as fragments."""
MEASURED = (2, 4)
"""Images of the two steps."""
_GB = 1e9


class Measured(NamedTuple):
    """What a step took."""

    images: int
    peak_bytes: int


def largest_batch(
    small: Measured, large: Measured, free_bytes: int, devices: int, most: int
) -> int:
    """The largest batch below `SHARE` of the memory, on the line through two measured steps.

    Args:
        small: a step with few images.
        large: a step with more.
        free_bytes: what one device can give to training.
        devices: the batch is split among so many; it becomes a multiple of them.
        most: no larger batch is of use: the training images.

    Raises:
        BackendError: not even one image fits.
    """
    per_image = (large.peak_bytes - small.peak_bytes) / (large.images - small.images)
    fixed = small.peak_bytes - small.images * per_image
    room = SHARE * free_bytes - fixed
    if room < per_image:
        raise BackendError(
            f"batch=-1: a step with one image takes {(fixed + per_image) / _GB:.1f} GB, but "
            f"{SHARE:.0%} of the free memory are {SHARE * free_bytes / _GB:.1f} GB; lower imgsz "
            "or set multi_scale=false"
        )
    useful = max(1, most // devices)
    each = useful if per_image <= 0 else min(useful, int(room // per_image))
    return each * devices


def check_automatic_batch(settings: TrainSettings, device: torch.device) -> None:
    """Refuse `batch=-1` where the memory cannot be measured.

    Raises:
        UsageError: the device is not CUDA, or there are several.
    """
    if settings.batch == AUTO and world_size() > 1:
        raise UsageError("train: batch=-1 measures one device; give the batch of all workers")
    if settings.batch == AUTO and device.type != "cuda":
        raise UsageError(
            f"train: batch=-1 fits the memory of a CUDA device and this run is on {device}; "
            "choose a batch, for example batch=8"
        )


def with_batch(
    settings: TrainSettings,
    network: RTDETRNetwork,
    is_pretrained: bool,
    split: DetectionDataset,
    device: torch.device,
) -> TrainSettings:
    """The settings with `batch=-1` resolved; any other batch stays.

    Args:
        settings: the user's keys.
        network: before the first step, on `device`, with its denoising set; it stays as it is.
        is_pretrained: what the recipe is resolved with, which decides what is frozen.
        split: the training images.
        device: where to train; CUDA for `batch=-1`.

    Raises:
        BackendError: the memory is not enough for one image, or not for the two steps.
    """
    if settings.batch != AUTO:
        return settings
    recipe = resolve_recipe(settings, network.config.recipe, 1, is_pretrained)
    return replace(settings, batch=_fitting_batch(settings, network, recipe, split, device))


def _fitting_batch(
    settings: TrainSettings,
    network: RTDETRNetwork,
    recipe: Recipe,
    split: DetectionDataset,
    device: torch.device,
) -> int:
    """Measure two training steps on the heaviest images that can come, and extend the line."""
    boxes = max([settings.num_denoising, *(len(record.labels) for record in split.records)])
    height, width = max(recipe.multi_scale or (size_hw(settings.imgsz),))
    free_bytes = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    precision = choose_precision(settings.amp, device)
    heaviest = [full_batch(count, (height, width), boxes) for count in MEASURED]
    try:
        small, large = _measure(network, recipe, precision, heaviest)
    except torch.cuda.OutOfMemoryError:
        raise BackendError(
            f"batch=-1: a step with {MEASURED[-1]} images of {height}x{width} pixels does not fit "
            f"into {free_bytes / _GB:.1f} GB; set batch=1, lower imgsz or set multi_scale=false"
        ) from None
    found = largest_batch(small, large, free_bytes, world_size(), len(split))
    say(
        f"batch={found}: steps with {small.images} and {large.images} images of {height}x{width} "
        f"pixels (height x width) and {boxes} boxes each took {small.peak_bytes / _GB:.1f} and "
        f"{large.peak_bytes / _GB:.1f} GB of {free_bytes / _GB:.1f} free"
    )
    return found


def _measure(
    network: RTDETRNetwork, recipe: Recipe, precision: Precision, batches: list[Batch]
) -> list[Measured]:
    """The peaks of one step with each batch, behind one that makes the optimizer's moments."""
    measured = []
    device = next(network.parameters()).device
    with torch.random.fork_rng(devices=[device]):
        step = training_step(network, recipe, precision)
        step(batches[0])
        for batch in batches:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            step(batch)
            torch.cuda.synchronize(device)
            measured.append(Measured(len(batch), torch.cuda.max_memory_reserved(device)))
        del step
    torch.cuda.empty_cache()
    return measured


def training_step(
    network: RTDETRNetwork, recipe: Recipe, precision: Precision
) -> Callable[[Batch], None]:
    """A step as step.py does it, on a copy; the network beside it stands for the average."""
    trained = deepcopy(network)
    device = next(trained.parameters()).device
    freeze(trained, recipe)
    train_mode(trained, recipe)
    optimizer, criterion = build_optimizer(trained, recipe), Criterion()

    def step(batch: Batch) -> None:
        terms = loss_terms(trained, criterion, precision, batch.to(device))
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()

    return step


def full_batch(images: int, size_hw: tuple[int, int], boxes: int) -> Batch:
    """Grey images full of boxes: as many denoising queries and pairs to match as can be."""
    centres = torch.linspace(0.1, 0.9, boxes)
    sides = torch.full_like(centres, 0.1)
    target = Target(
        torch.stack((centres, centres, sides, sides), dim=1), torch.zeros(boxes, dtype=torch.int64)
    )
    return Batch(
        torch.full((images, 3, *size_hw), 0.5),
        [target] * images,
        list(range(images)),
        [size_hw] * images,
        [""] * images,
    )
