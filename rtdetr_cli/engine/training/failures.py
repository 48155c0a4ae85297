"""The flight record: what a run was doing when its loss stopped being finite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from torch import Tensor

from rtdetr_cli.core.distributed import end_all, from_main, gathered
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
        BackendError: always; its sentence names the pictures and the command.
    """
    path = run.run_dir / "weights" / FLIGHT
    values = {name: value.item() for name, value in losses.items()}
    plain = [batch for part in gathered([_plain(batch) for batch in batches]) for batch in part]
    record = {"losses": values, "gradient_norm": norm, "batches": plain}
    from_main(lambda: _save(run, path, record))
    pictures = [path for batch in batches for path in batch.paths]
    end_all(
        BackendError(
            f"{MAX_SKIPPED} steps in a row were not finite; at step {run.progress.step} the loss "
            f"is {values['loss']} and its gradient's norm {norm}. Lower lr, or look at the "
            f"pictures {', '.join(pictures[:3])}; `rtdetr train resume={path}` repeats the step"
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
