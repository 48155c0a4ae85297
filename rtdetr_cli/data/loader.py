"""From records to batches: shuffling, augmentation in worker processes, multi-scale.

All randomness is derived from (seed, epoch, step or index), so that batches do not depend on the
number of workers or on the step at which a run is resumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.distributed import local_world_size, rank, world_size
from rtdetr_cli.core.errors import DataError, RTDETRError
from rtdetr_cli.core.image import Pixels, resize_image
from rtdetr_cli.core.opencv import cv2
from rtdetr_cli.core.status import counted
from rtdetr_cli.core.structures import Batch, Target
from rtdetr_cli.data.dataset import DetectionDataset, Ints, Record
from rtdetr_cli.data.image_cache import open_images, read_record_image
from rtdetr_cli.data.mosaic import MIXUP_SHARE, mixup, mosaic
from rtdetr_cli.data.transforms import AugmentConfig, augment, to_fractions
from rtdetr_cli.data.workers import num_workers, start_worker

_ORDER, _SCALE, _SAMPLE, _MIXUP = 0, 1, 2, 3  # separate the random streams of an epoch


@dataclass(frozen=True)
class LoaderConfig:
    """Options of the training loader."""

    batch: int
    """Images per batch over all processes."""
    size_hw: tuple[int, int]
    """Height and width of the samples, pixels."""
    seed: int = 0
    """Random seed."""
    workers: int | None = None
    """Data loading processes, 0: none; None: one per core, at most 4."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Probabilities of the augmentations."""
    dense_epochs: tuple[int, int] | None = None
    """First epoch with mosaic and mixup, and the one after the last; None: all epochs. There is no
    strong augmentation before the first."""
    multi_scale: tuple[tuple[int, int], ...] | None = None
    """Sizes (height, width) to sample from for each batch; None: always `size_hw`."""
    cache: str = "off"
    """Cache of decoded images: off, ram or disk."""
    rank: int = 0
    """Rank of this process."""
    world_size: int = 1
    """Number of processes that share the data."""

    def augment_in(self, epoch: int, strong: bool) -> AugmentConfig:
        """The augmentation of an epoch, counted from 0."""
        if not strong:
            return self.augment.weak()
        if self.dense_epochs is None:
            return self.augment
        first, end = self.dense_epochs
        if epoch < first:
            return self.augment.weak()
        return self.augment if epoch < end else self.augment.sparse()


def multi_scale_sizes(
    size_hw: tuple[int, int], spread: float = 0.25
) -> tuple[tuple[int, int], ...]:
    """Input sizes in steps of 32 pixels, the middle one three times.

    640 gives 480, 512, 544, 576, 608, 640 (three times), 672, 704, 736, 768, 800.

    Args:
        size_hw: the middle one.
        spread: the largest change as a fraction of it, officially 0.25.
    """
    middle = max(size_hw)
    longest = [side for side in range(32, 2 * middle, 32) if abs(side - middle) <= spread * middle]
    scaled = [
        tuple(max(round(side * length / middle / 32), 1) * 32 for length in size_hw)
        for side in sorted([*longest, middle, middle])
    ]
    return tuple((height, width) for height, width in scaled)


class SampleKey(NamedTuple):
    """Input of a worker to make one training sample."""

    position: int
    epoch: int
    size_hw: tuple[int, int]
    augment: AugmentConfig
    share: float
    """Weight of the image itself in mixup; 1: no mixup."""


class Sample(NamedTuple):
    """One image ready to be stacked; uint8, as it is sent between processes."""

    image: Tensor  # (3, H, W) uint8
    target: Target
    record: Record
    share: float = 1.0
    preprocess_s: float = 0.0
    resized: tuple[Tensor, ...] = ()


class TrainLoader:
    """Training batches of one epoch; call `set_epoch` before each.

    The processes share each batch, so that batches do not depend on their number. The last, smaller
    batch is dropped if it holds a single image (its batch statistics are too noisy) or fewer images
    than there are processes; the dropped images differ in each epoch.
    """

    def __init__(self, dataset: DetectionDataset, config: LoaderConfig) -> None:
        if not len(dataset):
            raise DataError("the training split has no images")
        if len(dataset) < config.world_size:
            raise DataError(
                f"the training split has {counted(len(dataset), 'image')}, too few for "
                f"{config.world_size} workers"
            )
        self._config = config
        workers = num_workers(config.workers)
        self._sampler = _TrainSampler(len(dataset), config)
        self._loader: DataLoader[Sample | RTDETRError] = DataLoader(
            _TrainSamples(dataset, config),
            batch_sampler=self._sampler,
            collate_fn=_collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=start_worker,
        )

    def set_epoch(self, epoch: int, strong: bool = True) -> None:
        """Set the epoch; without `strong`, only the flip is applied, at a fixed size."""
        self._sampler.epoch, self._sampler.strong = epoch, strong

    def batches(self, start_step: int = 0) -> Iterator[Batch]:
        """Iterate over the batches of the epoch, starting at a step."""
        self._sampler.start_step = start_step
        return _checked(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()

    def __len__(self) -> int:
        return self._sampler.num_steps


class EvalLoader:
    """All images of a split once, in order, without augmentation.

    With W processes, each gets every W-th batch. The images are sent to `device` as bytes, a
    quarter of the floats, and become float32 there; None: the CPU. Batches also have the images at
    `further_sizes_hw`.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        batch: int,
        preprocessing: Preprocessing,
        workers: int | None = 0,
        device: torch.device | None = None,
        further_sizes_hw: Sequence[tuple[int, int]] = (),
    ) -> None:
        self._device = device
        batches = [
            list(range(start, min(start + batch, len(dataset))))
            for start in range(rank() * batch, len(dataset), world_size() * batch)
        ]
        self._loader: DataLoader[Sample | RTDETRError] = DataLoader(
            _EvalSamples(dataset, preprocessing, further_sizes_hw),
            batch_sampler=batches,
            collate_fn=_collate,
            num_workers=num_workers(workers),
            worker_init_fn=start_worker,
        )

    def __iter__(self) -> Iterator[Batch]:
        return _checked(self._loader, self._device)

    def __len__(self) -> int:
        return len(self._loader)


def num_batches(num_images: int, batch: int, world_size: int) -> int:
    """Training batches in an epoch; see `TrainLoader` for the last, smaller one."""
    leftover = num_images % batch
    is_kept = leftover >= max(2, world_size) or leftover == num_images
    return num_images // batch + is_kept


class _TrainSampler(Sampler[list[SampleKey]]):
    def __init__(self, num_images: int, config: LoaderConfig) -> None:
        self.epoch, self.strong, self.start_step = 0, True, 0
        self._num_images, self._config = num_images, config
        self.num_steps = num_batches(num_images, config.batch, config.world_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        config = self._config
        order, augment = self._order(), config.augment_in(self.epoch, self.strong)
        for step in range(self.start_step, self.num_steps):
            chosen = order[step * config.batch : (step + 1) * config.batch]
            chosen = chosen[config.rank :: config.world_size]
            size_hw = self._size_hw(step)
            share = self._share(augment.mixup, step) if len(chosen) > 1 else 1.0
            yield [SampleKey(at, self.epoch, size_hw, augment, share) for at in chosen.tolist()]

    def __len__(self) -> int:
        return self.num_steps - self.start_step

    def _order(self) -> Ints:
        rng = np.random.default_rng([self._config.seed, _ORDER, self.epoch])
        return rng.permutation(self._num_images)

    def _size_hw(self, step: int) -> tuple[int, int]:
        config = self._config
        if not self.strong or not config.multi_scale:
            return config.size_hw
        rng = np.random.default_rng([config.seed, _SCALE, self.epoch, step])
        return config.multi_scale[rng.integers(len(config.multi_scale))]

    def _share(self, mixup: float, step: int) -> float:
        """Draw the weight of each image in mixup; 1: no mixup."""
        rng = np.random.default_rng([self._config.seed, _MIXUP, self.epoch, step])
        return rng.uniform(*MIXUP_SHARE) if rng.random() < mixup else 1.0


class _TrainSamples(Dataset[Sample | RTDETRError]):
    """Augmented samples by SampleKey."""

    def __init__(self, dataset: DetectionDataset, config: LoaderConfig) -> None:
        self._dataset, self._config = dataset, config
        self._images = open_images(dataset.records, config.cache, local_world_size())

    def __getitem__(self, key: SampleKey) -> Sample | RTDETRError:
        rng = np.random.default_rng([self._config.seed, _SAMPLE, key.epoch, key.position])
        positions = [key.position]
        if key.augment.mosaic and rng.random() < key.augment.mosaic:
            positions += rng.integers(len(self._dataset), size=3).tolist()
        records = [self._dataset.records[position] for position in positions]
        try:
            images = [self._images.read(position) for position in positions]
        except RTDETRError as error:  # raised in a worker, it would arrive as a traceback
            return error
        image, target = _place(images, records, key, rng)
        return Sample(_planes(image), target, records[0], key.share)


def _place(
    images: list[Pixels], records: list[Record], key: SampleKey, rng: np.random.Generator
) -> tuple[Pixels, Target]:
    """Make a sample from one image or four."""
    boxes = [record.boxes_xyxy[~record.iscrowd] for record in records]
    labels = np.concatenate([record.labels[~record.iscrowd] for record in records])
    if len(images) == 1:
        image, left, kept = augment(images[0], boxes[0], key.size_hw, key.augment, rng)
    else:
        image, left, kept = mosaic(images, boxes, key.size_hw, key.augment, rng)
    return image, Target(torch.from_numpy(left), torch.from_numpy(labels[kept]))


class _EvalSamples(Dataset[Sample | RTDETRError]):
    """Resized samples by position."""

    def __init__(
        self,
        dataset: DetectionDataset,
        preprocessing: Preprocessing,
        further_sizes_hw: Sequence[tuple[int, int]],
    ) -> None:
        self._dataset, self._antialias = dataset, preprocessing.antialias
        self._sizes_hw = preprocessing.size_hw, *further_sizes_hw

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample | RTDETRError:
        record = self._dataset.records[index]
        real = ~record.iscrowd
        try:
            image = read_record_image(record)
        except RTDETRError as error:
            return error
        start = perf_counter()
        planes, *resized = (
            _planes(resize_image(image, size_hw, self._antialias)) for size_hw in self._sizes_hw
        )
        preprocess_s = perf_counter() - start
        boxes = torch.from_numpy(to_fractions(record.boxes_xyxy[real], record.size_hw))
        target = Target(boxes, torch.from_numpy(record.labels[real]))
        return Sample(planes, target, record, preprocess_s=preprocess_s, resized=tuple(resized))


def _planes(image: Pixels) -> Tensor:
    """(H, W, 3) to (3, H, W), in the worker; cv2.split is the fastest transpose."""
    return torch.from_numpy(np.stack(cv2.split(image)))


def _collate(samples: list[Sample | RTDETRError]) -> Batch | RTDETRError:
    good: list[Sample] = []
    for sample in samples:
        if isinstance(sample, RTDETRError):
            return sample
        good.append(sample)
    images = torch.stack([sample.image for sample in good])
    targets = [sample.target for sample in good]
    if good[0].share < 1:
        images, targets = mixup(images, targets, good[0].share)
    return Batch(
        images=images,
        targets=targets,
        image_ids=[sample.record.image_id for sample in good],
        sizes_hw=[sample.record.size_hw for sample in good],
        paths=[str(sample.record.path) for sample in good],
        preprocess_s=sum(sample.preprocess_s for sample in good),
        resized=[torch.stack(same) for same in zip(*(one.resized for one in good), strict=True)],
    )


def _checked(
    loader: DataLoader[Sample | RTDETRError], device: torch.device | None = None
) -> Iterator[Batch]:
    """Raise the errors of workers; convert uint8 to float32 in 0..1 on the device."""
    batch: Batch | RTDETRError
    # A tensor, because CUDA multiplies by the reciprocal of a number, which rounds differently.
    levels = torch.tensor(255.0, device=device)
    for batch in loader:
        if isinstance(batch, RTDETRError):
            raise batch
        start = perf_counter()
        batch.images, *batch.resized = (
            images.to(device).float().div_(levels) for images in (batch.images, *batch.resized)
        )
        batch.preprocess_s += perf_counter() - start
        yield batch
