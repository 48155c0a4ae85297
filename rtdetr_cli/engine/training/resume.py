"""Saves a training run so that it can go on as if it had not been stopped.

No generator's state is stored: what is random in a step follows from (seed, step), what is random
in an image from (seed, epoch, index).
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.console import say, warn
from rtdetr_cli.core.distributed import is_worker
from rtdetr_cli.core.errors import StorageError, UsageError, WeightsError
from rtdetr_cli.core.files import run_path, storage_errors
from rtdetr_cli.engine.training.run import EpochSums, Progress, Run
from rtdetr_cli.engine.training.run_log import primitives
from rtdetr_cli.engine.training.state_check import check_training
from rtdetr_cli.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, stored

FOUND_BY = {"resume", "project", "name", "exist_ok"}
"""Keys that say where the stopped run is."""
CHANGEABLE = {"device", "workers", "cache", "data", "time", "patience", "save_steps", "save_period"}
CHANGEABLE |= {"plots", "json", "logger"}
"""Keys that a resumed run may give anew: they change no step."""


def run_checkpoint(run: Run) -> Checkpoint:
    """The averaged weights and everything beside them that the next step depends on."""
    checkpoint = weights_checkpoint(run)
    progress = run.progress
    checkpoint.training = {
        "settings": primitives(run.settings),
        "fingerprint": run.data.fingerprint,
        **vars(progress),
        "sums": {**vars(progress.sums), "losses": stored(progress.sums.losses)},
        "network": run.network.state_dict(),
        "ema_steps": run.ema.steps,
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.precision.scaler.state_dict(),
    }
    return checkpoint


def weights_checkpoint(run: Run) -> Checkpoint:
    """The averaged weights: what is validated and shipped."""
    network = run.ema.network
    return Checkpoint(
        config=network.config,
        names=run.data.train.names,
        weights=network.state_dict(),
        preprocessing=run.preprocessing,
        origin=f"rtdetr train, epoch {run.progress.epoch}",
    )


def restore(run: Run, stopped: Checkpoint) -> None:
    """Load the training state of a checkpoint that `check_training` has accepted.

    Of the optimizer's groups only the learning rates are restored.
    """
    state, optimizer = stopped.training or {}, run.optimizer
    run.network.load_state_dict(state["network"])
    run.ema.network.load_state_dict(stopped.weights)
    run.ema.steps = state["ema_steps"]
    groups = zip(
        optimizer.state_dict()["param_groups"], state["optimizer"]["param_groups"], strict=True
    )
    own_groups = [{**own, "lr": saved["lr"]} for own, saved in groups]
    optimizer.load_state_dict({**state["optimizer"], "param_groups": own_groups})
    _match_layouts(optimizer)
    run.precision.restore(state["scaler"])
    sums = EpochSums(**state["sums"])
    sums.losses = {name: value.to(run.device) for name, value in sums.losses.items()}
    known = {key.name: state[key.name] for key in fields(Progress) if key.name in state}
    run.progress = Progress(**{**known, "sums": sums})


def _match_layouts(optimizer: Optimizer) -> None:
    """Give each moment the memory layout of its parameter.

    Files hold contiguous tensors; the fused kernel walks the raw memory of parameter and moments
    side by side, so that a channels-last parameter would meet its neighbours' moments.
    """
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(value)


def start_or_resume(
    settings: TrainSettings,
) -> tuple[TrainSettings, Checkpoint | None, Path | None]:
    """What a run begins with: its settings and, where it goes on, its checkpoint and its folder.

    A launcher starts its workers anew with the same words, so there `resume=true` begins a run
    where none has been saved yet.

    Raises:
        UsageError, WeightsError: as `open_stopped_run`.
    """
    if not settings.resume:
        return settings, None, None
    finds_newest = settings.resume is True and Path(settings.model).name != LAST
    if is_worker() and finds_newest and settings.data and _newest(settings) is None:
        say("resume: there is no run to go on with yet, so one begins")
        begun = replace(settings, resume=False)
        object.__setattr__(begun, "given", settings.given)  # it is frozen
        return begun, None, None
    return open_stopped_run(settings)


def run_folder(settings: TrainSettings) -> Path:
    """The folder of the run that `resume` means.

    Raises:
        UsageError: there is none, or its file is in no run folder.
    """
    return _folder_of(_last_checkpoint(settings))


def open_stopped_run(settings: TrainSettings) -> tuple[TrainSettings, Checkpoint, Path]:
    """Find the run that `resume` means.

    Returns:
        Its settings, its checkpoint and its folder.

    Raises:
        UsageError: there is none, or a key differs from what the run was started with.
        WeightsError: the checkpoint is damaged or holds no training state.
    """
    path = _last_checkpoint(settings)
    folder = _folder_of(path)
    checkpoint = open_last(path)
    state = checkpoint.training or {}
    stored = settings_from_pairs(TrainSettings, state["settings"])
    given = given_keys(settings) - FOUND_BY
    if str(path) == settings.model:
        given -= {"model"}
    for key in sorted(given - CHANGEABLE):
        if getattr(settings, key) != getattr(stored, key):
            raise UsageError(
                f"{path} was started with {key}={getattr(stored, key)}; a resumed run cannot "
                f"change it to {getattr(settings, key)}"
            )
    remove_leftovers(folder)
    anew = {key: value for key, value in primitives(settings).items() if key in given & CHANGEABLE}
    resumed = settings_from_pairs(TrainSettings, {**primitives(stored), **anew})
    _say_position(folder, state, resumed.epochs)
    return resumed, checkpoint, folder


def given_keys(settings: TrainSettings) -> set[str]:
    """Keys that the user set: those he named, and in Python those that differ from the default."""
    default = TrainSettings(data="default")
    differ = {
        key.name
        for key in fields(settings)
        if getattr(settings, key.name) != getattr(default, key.name)
    }
    return {*settings.given, *differ} - ({"data"} if settings.data is None else set())


def _say_position(folder: Path, state: dict[str, Any], epochs: int) -> None:
    if state["epoch"] >= epochs:
        say(f"{folder} is finished, all {epochs} epochs are done; its best weights are scored anew")
    else:
        say(
            f"resuming {folder} after step {state['step']}: {state['epoch']} of {epochs} epochs "
            f"and {state['sums']['steps']} steps of the next"
        )


def _folder_of(path: Path) -> Path:
    """The run folder that a state is in, the only place that a resumed run writes to.

    Raises:
        UsageError: the file is in no run folder.
    """
    place = path if path.parent.name == "weights" else path.resolve()
    if place.parent.name != "weights":
        raise UsageError(
            f"{path} is in no run folder; put it into the folder weights of one, such as "
            f"runs/train/weights/{path.name}"
        )
    return place.parent.parent


def _last_checkpoint(settings: TrainSettings) -> Path:
    if isinstance(settings.resume, str):
        path = Path(settings.resume)
        path = path / "weights" / LAST if path.is_dir() else path
        if not path.is_file() and not path.with_name(PREVIOUS).is_file():
            raise UsageError(f"resume={settings.resume}: there is no such checkpoint")
        return path
    if Path(settings.model).name == LAST:
        return Path(settings.model)
    newest = _newest(settings)
    if newest is None:
        raise UsageError(
            f"resume: no run with a last.pt in {settings.project}/{settings.name}*; "
            "give its path with resume=path/to/last.pt"
        )
    return newest.with_name(LAST)


def _newest(settings: TrainSettings) -> Path | None:
    first = run_path(settings.project, settings.name)
    found = first.parent.glob(f"{first.name}*/weights/last*.pt")
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


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
