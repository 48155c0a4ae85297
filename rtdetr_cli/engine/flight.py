"""The flight record: what a run was doing when its loss stopped being finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from torch import Tensor

from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.core.structures import Batch
from rtdetr_cli.engine.run import Run
from rtdetr_cli.engine.snapshot import run_checkpoint
from rtdetr_cli.weights.checkpoint import save_checkpoint

MAX_SKIPPED = 3
"""Steps in a row that may not be finite, the last of which ends the run."""
FLIGHT = "flight.pt"


def crash(run: Run, batches: Sequence[Batch], losses: dict[str, Tensor], norm: float) -> NoReturn:
    """Save batches, losses and the state before this step, which resuming repeats, and end.

    Raises:
        BackendError: always; its sentence names the pictures and the command.
    """
    checkpoint = run_checkpoint(run)
    path = run.run_dir / "weights" / FLIGHT
    values = {name: value.item() for name, value in losses.items()}
    assert checkpoint.training is not None
    checkpoint.training["flight"] = {
        "losses": values,
        "gradient_norm": norm,
        "batches": [_plain(batch) for batch in batches],
    }
    save_checkpoint(path, checkpoint)
    pictures = [path for batch in batches for path in batch.paths]
    raise BackendError(
        f"{MAX_SKIPPED} steps in a row were not finite; at step {run.progress.step} the loss is "
        f"{values['loss']} and its gradient's norm {norm}. Lower lr, or look at the pictures "
        f"{', '.join(pictures[:3])}; `rtdetr train resume={path}` repeats the step"
    )


def _plain(batch: Batch) -> dict[str, object]:
    return {
        "images": batch.images.cpu(),
        "boxes_cxcywh": [target.boxes_cxcywh.cpu() for target in batch.targets],
        "labels": [target.labels.cpu() for target in batch.targets],
        "paths": batch.paths,
    }
