"""`batch=-1`: the largest batch that fits the memory of a CUDA device, from two measured steps.

prepare.py resolves it before the recipe, whose schedule depends on the batch.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple

import torch
from torch.amp import GradScaler

from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.console import say
from rtdetr_cli.core.distributed import world_size
from rtdetr_cli.core.errors import BackendError, UsageError
from rtdetr_cli.core.structures import Batch, Target
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.engine.training.optim import train_mode
from rtdetr_cli.engine.training.precision import choose_precision
from rtdetr_cli.engine.training.recipe import resolve_recipe
from rtdetr_cli.engine.training.run import StepState
from rtdetr_cli.engine.training.step import train_step
from rtdetr_cli.loss.criterion import Criterion
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

AUTO = -1
SHARE = 0.8
"""Share of the free memory to use; the rest is for fragmentation and the like."""
MEASURED = (2, 4)
"""Images of the two measured steps."""
_GB = 1e9


class Measured(NamedTuple):
    """Peak memory of a step."""

    images: int
    peak_bytes: int


def largest_batch(
    small: Measured, large: Measured, free_bytes: int, devices: int, most: int
) -> int:
    """The largest batch within `SHARE` of the memory, extrapolated linearly from two steps.

    Args:
        small: a step with few images.
        large: a step with more images.
        free_bytes: memory of one device available for training.
        devices: number of devices that share the batch, which becomes a multiple of it.
        most: upper limit, the number of training images.

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
    """Reject `batch=-1` where the memory cannot be measured.

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
    """The settings with `batch=-1` resolved; any other batch is kept.

    Args:
        settings: the user's keys.
        network: before the first step, on the CPU; it is not changed.
        is_pretrained: whether the backbone is pretrained, which decides what is frozen.
        split: the training images.
        device: the device to train on; CUDA for `batch=-1`.

    Raises:
        BackendError: one image, or the two measured steps, do not fit.
    """
    if settings.batch != AUTO:
        return settings
    state = copied_state(settings, network, is_pretrained, device)
    boxes = max([settings.num_denoising, *(len(record.labels) for record in split.records)])
    height, width = max(state.recipe.multi_scale or (state.recipe.size_hw,))
    free_bytes = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    try:
        small, large = _measure(state, [full_batch(n, (height, width), boxes) for n in MEASURED])
    except torch.cuda.OutOfMemoryError:
        raise BackendError(
            f"batch=-1: a step with {MEASURED[-1]} images of {height}x{width} pixels does not fit "
            f"into {free_bytes / _GB:.1f} GB; set batch=1, lower imgsz or set multi_scale=false"
        ) from None
    del state
    torch.cuda.empty_cache()
    found = largest_batch(small, large, free_bytes, world_size(), len(split))
    say(
        f"batch={found}: steps with {small.images} and {large.images} images of {height}x{width} "
        f"pixels (height x width) and {boxes} boxes each took {small.peak_bytes / _GB:.1f} and "
        f"{large.peak_bytes / _GB:.1f} GB of {free_bytes / _GB:.1f} free"
    )
    return replace(settings, batch=found)


def copied_state(
    settings: TrainSettings, network: RTDETRNetwork, is_pretrained: bool, device: torch.device
) -> StepState:
    """The state of a run's steps, on a copy of the network and without loss scaling.

    A scaled float16 gradient may overflow; such a step is skipped before its peak.
    """
    precision = choose_precision(settings.amp, device)
    precision.scaler = GradScaler(device.type, enabled=False)
    return StepState(
        settings=settings,
        device=device,
        recipe=resolve_recipe(settings, network.config.recipe, 1, is_pretrained),
        network=deepcopy(network),
        precision=precision,
    )


def _measure(state: StepState, batches: list[Batch]) -> list[Measured]:
    """Peak memory of a step with each batch, after one that allocates the optimizer's moments."""
    measured, criterion, device = [], Criterion(), state.device
    train_mode(state.network, state.recipe)
    with torch.random.fork_rng(devices=[device]):
        train_step(state, criterion, batches[0])
        for batch in batches:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            train_step(state, criterion, batch)
            torch.cuda.synchronize(device)
            measured.append(Measured(len(batch), torch.cuda.max_memory_reserved(device)))
    return measured


def full_batch(images: int, size_hw: tuple[int, int], boxes: int) -> Batch:
    """Grey images full of boxes: the most denoising queries and pairs to match."""
    centers = torch.linspace(0.1, 0.9, boxes)
    sides = torch.full_like(centers, 0.1)
    target = Target(
        torch.stack((centers, centers, sides, sides), dim=1), torch.zeros(boxes, dtype=torch.int64)
    )
    return Batch(
        torch.full((images, 3, *size_hw), 0.5),
        [target] * images,
        list(range(images)),
        [size_hw] * images,
        [""] * images,
    )
