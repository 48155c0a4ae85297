"""Failed steps: a record that repeats a non-finite step, and messages for lack of memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import torch

from rtdetr_cli.config.settings.modes import size_hw
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.distributed import all_gather, end_all, main_process_only
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.core.structures import Batch
from rtdetr_cli.engine.training.compiled import explain_failed_compile
from rtdetr_cli.engine.training.resume import run_checkpoint
from rtdetr_cli.engine.training.run import MAX_SKIPPED, Run
from rtdetr_cli.engine.training.step import NotFiniteError
from rtdetr_cli.weights.checkpoint import save_checkpoint

FLIGHT = "flight.pt"
_OUT_OF_MEMORY = (torch.cuda.OutOfMemoryError, MemoryError)
_OUT_OF_MEMORY_TEXTS = ("can't allocate memory", "MPS backend out of memory")
"""Messages of the CPU and MPS allocators, which raise a plain RuntimeError."""


@contextmanager
def explain_failed_step(run: Run, batches: Sequence[Batch]) -> Iterator[None]:
    """Report a failed step in one sentence; a non-finite one also leaves flight.pt.

    Raises:
        BackendError: out of memory, torch.compile failed, or the gradient is not finite.
    """
    with explain_out_of_memory(batches, run.settings), explain_failed_compile():
        try:
            yield
        except NotFiniteError as error:
            _end_with_record(run, batches, error)


def _end_with_record(run: Run, batches: Sequence[Batch], error: NotFiniteError) -> NoReturn:
    """Save the state before the step with the batches and losses of all processes, and end.

    Resuming from the record repeats the step.
    """
    path = run.run_dir / "weights" / FLIGHT
    losses = {name: value.item() for name, value in error.losses.items()}
    gathered = all_gather([_to_plain(batch) for batch in batches])
    record = {
        "losses": losses,
        "gradient_norm": error.gradient_norm,
        "batches": [batch for part in gathered for batch in part],
    }
    _save_record(run, path, record)
    paths = [path for batch in batches for path in batch.paths]
    end_all(
        BackendError(
            f"{MAX_SKIPPED} steps in a row were not finite; at step {run.progress.step} the loss "
            f"is {losses['loss']} and the gradient norm {error.gradient_norm}. Lower lr, or check "
            f"the images {', '.join(paths[:3])}; `rtdetr train resume={path}` repeats the step"
        )
    )


@main_process_only
def _save_record(run: Run, path: Path, record: dict[str, object]) -> None:
    checkpoint = run_checkpoint(run)
    assert checkpoint.training is not None
    checkpoint.training["flight"] = record
    save_checkpoint(path, checkpoint)


def _to_plain(batch: Batch) -> dict[str, object]:
    return {
        "images": batch.images.cpu(),
        "boxes_cxcywh": [target.boxes_cxcywh.cpu() for target in batch.targets],
        "labels": [target.labels.cpu() for target in batch.targets],
        "paths": batch.paths,
    }


@contextmanager
def explain_out_of_memory(batches: Sequence[Batch], settings: TrainSettings) -> Iterator[None]:
    """Turn an allocator's error into a sentence with the batch size and what to lower.

    Raises:
        BackendError: the device or the machine ran out of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        is_text = any(text in str(error) for text in _OUT_OF_MEMORY_TEXTS)
        if not isinstance(error, _OUT_OF_MEMORY) and not is_text:
            raise
        raise BackendError(_describe_out_of_memory(batches, settings)) from error


def _describe_out_of_memory(batches: Sequence[Batch], settings: TrainSettings) -> str:
    largest = max(batches, key=lambda batch: batch.images.numel()).images
    count, _, height, width = largest.shape
    boxes = max(len(target.labels) for batch in batches for target in batch.targets)
    advice = "lower imgsz"
    if settings.batch > 1:
        half = settings.batch // 2
        advice = f"try batch={half} accumulate={2 * settings.accumulate}, which trains the same"
        advice += f", or lower imgsz={settings.imgsz}"
    if settings.imgsz and max(height, width) > max(size_hw(settings.imgsz)):
        advice += ", or set multi_scale=false"
    return (
        f"out of memory at batch={settings.batch} with {count} images of {height}x{width} pixels "
        f"(height x width) and up to {boxes} boxes each; {advice}"
    )
