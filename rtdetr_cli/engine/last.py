"""last.pt and the state before it: one of the two is whole at any moment."""

from __future__ import annotations

from pathlib import Path

from rtdetr_cli.core.console import warn
from rtdetr_cli.core.errors import StorageError, WeightsError
from rtdetr_cli.core.files import storage_errors
from rtdetr_cli.engine.training.state_check import check_training
from rtdetr_cli.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

LAST, PREVIOUS, DAMAGED, NEXT = "last.pt", "last-previous.pt", "last-damaged.pt", ".last-next.pt"


def save_last(weights_dir: Path, checkpoint: Checkpoint) -> None:
    """Write last.pt; the one before is last-previous.pt as soon as the new one is on the disk.

    Raises:
        StorageError: disk full or no permission; the state before is still whole.
    """
    last, following = weights_dir / LAST, weights_dir / NEXT
    try:
        save_checkpoint(following, checkpoint)
        with storage_errors(last):
            if last.is_file():
                last.replace(weights_dir / PREVIOUS)
            following.replace(last)
    except StorageError as error:
        if not last.is_file():
            raise
        raise StorageError(
            f"{str(error).replace(NEXT, LAST)}; the state before is whole, "
            "make room and go on with `rtdetr train resume=true`"
        ) from error


def open_last(path: Path) -> Checkpoint:
    """The state in a file; for a last.pt that is torn or absent the one before it, and says so.

    Nothing in the file is trusted: state_check.py compares all of it with what the run needs.

    Raises:
        WeightsError: neither is whole, or the file holds no training state.
    """
    previous = path.with_name(PREVIOUS)
    if path.name != LAST or not previous.is_file():
        return _open(path)
    try:
        return _open(path)
    except WeightsError as error:
        try:
            checkpoint = _open(previous)
        except WeightsError as earlier:
            raise WeightsError(
                f"{error}; the state before it cannot be used either: {earlier}"
            ) from None
        if path.is_file():
            path.replace(path.with_name(DAMAGED))  # it must not take the place of a whole one
        warn(f"{error}; going on from the state before it, {previous}")
        return checkpoint


def remove_leftovers(run_dir: Path) -> None:
    """Delete what a killed process had not finished writing."""
    for path in (*(run_dir / "weights").glob(".*.pt"), *run_dir.glob(".results-*.csv")):
        path.unlink()


def _open(path: Path) -> Checkpoint:
    checkpoint = load_checkpoint(path)
    check_training(checkpoint, str(path))
    return checkpoint
