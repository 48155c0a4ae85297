"""Save and restore a training run, so that a resumed run is bit-identical to an uninterrupted one.

No random generator is saved: a step draws from (seed, step, rank), an image from (seed, epoch,
index).
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from rtdetr_cli.config.fields import field_types
from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.console import say, warn
from rtdetr_cli.core.distributed import is_worker
from rtdetr_cli.core.errors import StorageError, UsageError, WeightsError
from rtdetr_cli.core.files import run_path, storage_errors
from rtdetr_cli.engine.training.distillation import without_projector
from rtdetr_cli.engine.training.run import EpochSums, Progress, Run
from rtdetr_cli.engine.training.run_log import primitives
from rtdetr_cli.engine.training.state_check import check_training
from rtdetr_cli.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, stored
from rtdetr_cli.weights.trained_on import TrainedOn, is_name

FOUND_BY = {"resume", "project", "name", "exist_ok"}
"""Keys that locate the stopped run."""
CHANGEABLE = {"device", "workers", "cache", "data", "time", "patience", "save_steps", "save_period"}
CHANGEABLE |= {"plots", "json", "logger", "ultralytics_csv", "download"}
"""Keys that may differ in a resumed run, as they change no step."""


def run_checkpoint(run: Run) -> Checkpoint:
    """The averaged weights and everything else that the next step depends on."""
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
    """The averaged weights, which are validated and exported."""
    network, settings, data = run.ema.network, run.settings, run.settings.data or ""
    keys = (run.preprocessing.size_hw, settings.batch, settings.single_cls, settings.classes)
    return Checkpoint(
        config=network.config,
        names=run.data.train.names,
        weights=without_projector(network.state_dict()),
        preprocessing=run.preprocessing,
        trained_on=TrainedOn(data, *keys) if is_name(data) else None,
        origin=f"rtdetr train, epoch {run.progress.epoch}",
        licence=run.licence,
    )


def restore(run: Run, stopped: Checkpoint) -> None:
    """Load the training state of a checkpoint that `check_training` has accepted.

    Of the optimizer's groups only the learning rates are restored.
    """
    state, optimizer = stopped.training or {}, run.optimizer
    run.network.load_state_dict(state["network"])
    run.ema.network.load_state_dict(state["network"] | stopped.weights)
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

    Files hold contiguous tensors, but the fused kernel indexes the raw memory of parameter and
    moments in parallel, which would pair a channels-last parameter with the wrong moments.
    """
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(value)


def start_or_resume(
    settings: TrainSettings,
) -> tuple[TrainSettings, Checkpoint | None, Path | None]:
    """The settings of a run and, if it is resumed, its checkpoint and folder.

    A finished run with more epochs= continues as a new one. A launcher restarts its workers with
    the same arguments, so in a worker `resume=true` starts a new run if none has been saved yet.

    Raises:
        UsageError: there is no run to resume, or a key differs from those of the run.
        WeightsError: its checkpoint is damaged or holds no training state.
    """
    if not settings.resume:
        return settings, None, None
    finds_newest = settings.resume is True and _last_of_model(settings) is None
    if is_worker() and finds_newest and settings.data and _newest(settings) is None:
        say("resume: there is no run to resume yet; starting one")
        return replace(settings, resume=False), None, None
    path = _last_checkpoint(settings)
    checkpoint = open_last(path)
    stored = settings_from_pairs(TrainSettings, (checkpoint.training or {})["settings"])
    done = (checkpoint.training or {})["epoch"]
    if "epochs" in given_keys(settings) and settings.epochs > done >= stored.epochs:
        return _beyond_end(settings, stored, path), None, None
    return _stopped_run(settings, stored, path, checkpoint), checkpoint, _folder_of(path)


def run_folder(settings: TrainSettings) -> Path:
    """The folder of the run to resume.

    Raises:
        UsageError: there is none, or its file is not in a run folder.
    """
    return _folder_of(_last_checkpoint(settings))


def _stopped_run(
    settings: TrainSettings, stored: TrainSettings, path: Path, checkpoint: Checkpoint
) -> TrainSettings:
    """The settings with which a run is resumed: its own, and the keys that may change.

    Raises:
        UsageError: another key differs from that of the run.
    """
    folder, state = _folder_of(path), checkpoint.training or {}
    given = given_keys(settings) - FOUND_BY
    if _last_of_model(settings) == path:
        given -= {"model"}
    for key in sorted(given - CHANGEABLE):
        if (value := getattr(settings, key)) != getattr(stored, key):
            raise UsageError(
                f"{path} was started with {key}={getattr(stored, key)}; a resumed run cannot "
                f"change it to {value}; model={path} instead of resume starts a new run from its "
                "weights"
            )
    remove_leftovers(folder)
    changes = {
        key: value for key, value in primitives(settings).items() if key in given & CHANGEABLE
    }
    resumed = settings_from_pairs(TrainSettings, {**primitives(stored), **changes})
    _print_position(folder, state, resumed)
    return resumed


def _beyond_end(settings: TrainSettings, stored: TrainSettings, path: Path) -> TrainSettings:
    """The settings of a new run that fine-tunes a finished one for the epochs that are missing.

    Keys that are not given are those of the finished run, except those that its length or its
    initial weights determined.
    """
    given = given_keys(settings) - {"resume", "model", "pretrained", "recipe", "exist_ok"}
    folder, more = _folder_of(path), settings.epochs - stored.epochs
    kept = primitives(stored) | dict.fromkeys(("pretrained", "recipe", "time", "dense_epochs"))
    for key in ("patience", "save_period"):
        kept[key] = getattr(stored, key) if getattr(stored, key) < more else 0
    kept |= {key: value for key, value in primitives(settings).items() if key in given}
    if "project" not in given:
        kept["project"] = str(folder.parent)
    place = {"model": str(path), "resume": False, "exist_ok": False, "epochs": more}
    say(
        f"{_finished(folder, stored.epochs)}; fine-tuning from its last.pt for {more} more, to "
        f"{settings.epochs} in all: a new run with a schedule of its own"
    )
    continued = settings_from_pairs(TrainSettings, kept | place)
    return replace(continued, given=frozenset(given))


def given_keys(settings: TrainSettings) -> set[str]:
    """Keys set by the user: those named, and in Python those that differ from the default."""
    default = TrainSettings(data="default")
    differ = {
        key for key in field_types(TrainSettings) if getattr(settings, key) != getattr(default, key)
    }
    return {*settings.given, *differ} - ({"data"} if settings.data is None else set())


def _print_position(folder: Path, state: dict[str, Any], settings: TrainSettings) -> None:
    epochs = settings.epochs
    if state["epoch"] >= epochs:
        rest = "scoring its best weights again" if settings.val else "nothing is left to do"
        say(f"{_finished(folder, epochs)}; {rest}")
    else:
        say(
            f"resuming {folder} after step {state['step']}: {state['epoch']} of {epochs} epochs "
            f"and {state['sums']['steps']} steps of the next"
        )


def _finished(folder: Path, epochs: int) -> str:
    done = "its epoch is" if epochs == 1 else f"all {epochs} epochs are"
    return f"{folder} is finished, {done} done"


def _folder_of(path: Path) -> Path:
    """The run folder of a checkpoint, the only folder that a resumed run writes to.

    Raises:
        UsageError: the file is not in a run folder.
    """
    place = path if path.parent.name == "weights" else path.resolve()
    if place.parent.name != "weights":
        raise UsageError(
            f"{path} is not in a run folder; move it to the folder weights of one, such as "
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
    named = _last_of_model(settings)
    if named is not None:
        return named
    newest = _newest(settings)
    if newest is None:
        raise UsageError(
            f"resume: no run with a last.pt in {settings.project}/{_runs(settings)}; "
            "give its path with resume=path/to/last.pt"
        )
    return newest.with_name(LAST)


def _last_of_model(settings: TrainSettings) -> Path | None:
    """The last.pt that `model` names, or that of the run folder that it names."""
    path = Path(settings.model)
    path = path / "weights" / LAST if path.is_dir() else path
    return path if path.name == LAST else None


def _newest(settings: TrainSettings) -> Path | None:
    first = run_path(settings.project, settings.name)
    found = first.parent.glob(f"{_runs(settings)}/weights/last*.pt")
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _runs(settings: TrainSettings) -> str:
    """Pattern of the run folders: those of `name`, or all if it is not given."""
    return f"{Path(settings.name).name}*" if "name" in given_keys(settings) else "*"


LAST, PREVIOUS, DAMAGED, NEXT = "last.pt", "last-previous.pt", "last-damaged.pt", ".last-next.pt"


def save_last(weights_dir: Path, checkpoint: Checkpoint) -> None:
    """Write last.pt; its predecessor becomes last-previous.pt once the new file is on disk.

    Raises:
        StorageError: disk full or no permission; the previous state is intact.
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
            f"{str(error).replace(NEXT, LAST)}; the previous state is "
            "intact, free some space and continue with `rtdetr train resume=true`"
        ) from error


def open_last(path: Path) -> Checkpoint:
    """Read a checkpoint; if a last.pt is damaged or absent, warn and read last-previous.pt.

    The file is not trusted: state_check.py validates all of it.

    Raises:
        WeightsError: both are damaged, or the file has no training state.
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
                f"{error}; the previous state cannot be used either: {earlier}"
            ) from None
        if path.is_file():
            path.replace(path.with_name(DAMAGED))  # must not become last-previous.pt
        warn(f"{error}; continuing from the previous state, {previous}")
        return checkpoint


def remove_leftovers(run_dir: Path) -> None:
    """Delete files that a killed process has not finished writing."""
    for path in (*(run_dir / "weights").glob(".*.pt"), *run_dir.glob(".results-*.csv")):
        path.unlink()


def _open(path: Path) -> Checkpoint:
    checkpoint = load_checkpoint(path)
    check_training(checkpoint, str(path))
    return checkpoint
