"""The flight record: what a run was doing when its loss stopped being finite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from rtdetr_cli.config.settings.modes import size_hw
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.distributed import all_gather, end_all, run_on_main
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.core.structures import Batch
from rtdetr_cli.engine.training.resume import run_checkpoint
from rtdetr_cli.engine.training.run import MAX_SKIPPED, Run
from rtdetr_cli.weights.checkpoint import save_checkpoint

FLIGHT = "flight.pt"


def crash(run: Run, batches: Sequence[Batch], losses: dict[str, Tensor], norm: float) -> NoReturn:
    """Save all processes' batches, losses and the state before this step, and end.

    Resuming repeats the step.

    Raises:
        BackendError: always; its sentence names the images and the command.
    """
    path = run.run_dir / "weights" / FLIGHT
    values = {name: value.item() for name, value in losses.items()}
    plain = [batch for part in all_gather([_plain(batch) for batch in batches]) for batch in part]
    record = {"losses": values, "gradient_norm": norm, "batches": plain}
    run_on_main(lambda: _save(run, path, record))
    pictures = [path for batch in batches for path in batch.paths]
    end_all(
        BackendError(
            f"{MAX_SKIPPED} steps in a row were not finite; at step {run.progress.step} the loss "
            f"is {values['loss']} and its gradient's norm {norm}. Lower lr, or look at the "
            f"images {', '.join(pictures[:3])}; `rtdetr train resume={path}` repeats the step"
        )
    )


def _save(run: Run, path: Path, record: dict[str, object]) -> None:
    checkpoint = run_checkpoint(run)
    assert checkpoint.training is not None
    checkpoint.training["flight"] = record
    save_checkpoint(path, checkpoint)


def _plain(batch: Batch) -> dict[str, object]:
    return {
        "images": batch.images.cpu(),
        "boxes_cxcywh": [target.boxes_cxcywh.cpu() for target in batch.targets],
        "labels": [target.labels.cpu() for target in batch.targets],
        "paths": batch.paths,
    }


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
