"""Out of memory, said in one sentence: what was tried and what to lower."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from rtdetr_cli.config.settings.modes import TrainSettings, size_hw
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.core.structures import Batch

_KINDS = (torch.cuda.OutOfMemoryError, MemoryError)
_WORDS = ("can't allocate memory", "MPS backend out of memory")
"""What the allocators of CPU and MPS say, which have no error of their own."""


@contextmanager
def explain_out_of_memory(batches: Sequence[Batch], settings: TrainSettings) -> Iterator[None]:
    """Turn PyTorch's error into a sentence.

    Raises:
        BackendError: the memory of the device or of the machine was not enough.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, _KINDS) and not any(text in str(error) for text in _WORDS):
            raise
        raise BackendError(_sentence(batches, settings)) from error


def _sentence(batches: Sequence[Batch], settings: TrainSettings) -> str:
    largest = max(batches, key=lambda batch: batch.images.numel()).images
    count, _, height, width = largest.shape
    boxes = max(len(target.labels) for batch in batches for target in batch.targets)
    advice = "lower imgsz"
    if settings.batch > 1:
        half = settings.batch // 2
        advice = f"try batch={half} accumulate={2 * settings.accumulate}, which learns alike"
        advice += f", or lower imgsz={settings.imgsz}"
    if max(height, width) > max(size_hw(settings.imgsz)):
        advice += ", or set multi_scale=false"
    return (
        f"out of memory at batch={settings.batch} with {count} images of {height}x{width} pixels "
        f"(height x width) and up to {boxes} boxes each; {advice}"
    )
