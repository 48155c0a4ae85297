"""Saves a training run so that it can go on as if it had not been stopped."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from rtdetr_cli.config.given import settings_from_pairs
from rtdetr_cli.config.settings import TrainSettings
from rtdetr_cli.core.errors import UsageError, WeightsError
from rtdetr_cli.engine.ema import EMA
from rtdetr_cli.engine.run_log import Row, primitives
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint, load_checkpoint

CHANGEABLE = {"resume", "device", "workers", "project", "name", "exist_ok", "data", "model"}
"""Keys that may differ from those of the stopped run."""


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: epochs done.
        step: optimizer steps done.
        best: best AP so far, -1 before the first validation.
        rows: results.csv so far.
    """

    epoch: int
    step: int
    best: float
    rows: list[Row]


def training_state(
    settings: TrainSettings,
    progress: Progress,
    network: RTDETRNetwork,
    ema: EMA,
    optimizer: Optimizer,
) -> dict[str, Any]:
    """Everything beside the averaged weights that the next epoch depends on."""
    return {
        "settings": primitives(settings),
        "epoch": progress.epoch,
        "step": progress.step,
        "best": progress.best,
        "rows": progress.rows,
        "network": network.state_dict(),
        "ema_steps": ema.steps,
        "optimizer": optimizer.state_dict(),
        "rng": random_state(),
    }


def restore(
    state: dict[str, Any],
    network: RTDETRNetwork,
    ema: EMA,
    weights: dict[str, Tensor],
    optimizer: Optimizer,
) -> Progress:
    """Put a saved state back; random numbers go on where they stopped."""
    network.load_state_dict(state["network"])
    ema.network.load_state_dict(weights)
    ema.steps = state["ema_steps"]
    optimizer.load_state_dict(state["optimizer"])
    _match_layouts(optimizer)
    set_random_state(state["rng"])
    return Progress(state["epoch"], state["step"], state["best"], state["rows"])


def _match_layouts(optimizer: Optimizer) -> None:
    """Give each moment the memory layout of its parameter.

    Files hold contiguous tensors; the fused kernel walks the raw memory of parameter and moments
    side by side, so that a channels-last parameter would meet its neighbours' moments.
    """
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(value)


def random_state() -> dict[str, Any]:
    """State of PyTorch's generators, the only global ones that training draws from."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Put a state back that `random_state` gave."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def open_stopped_run(settings: TrainSettings) -> tuple[TrainSettings, Checkpoint, Path]:
    """Find the run that `resume` means.

    Returns:
        Its settings, its checkpoint and its folder.

    Raises:
        UsageError: there is none, or a key differs from what the run was started with.
        WeightsError: the checkpoint is damaged or holds no training state.
    """
    path = _last_checkpoint(settings)
    checkpoint = load_checkpoint(path)
    if checkpoint.training is None:
        raise WeightsError(f"{path} holds weights only; resume needs the last.pt of a run")
    stored = settings_from_pairs(TrainSettings, checkpoint.training["settings"])
    default = TrainSettings(data=stored.data)
    changed = {
        field.name: getattr(settings, field.name)
        for field in fields(settings)
        if getattr(settings, field.name) != getattr(default, field.name)
    }
    for key, value in changed.items():
        if key not in CHANGEABLE and value != getattr(stored, key):
            raise UsageError(
                f"{path} was started with {key}={getattr(stored, key)}; a resumed run cannot "
                f"change it to {value}"
            )
    machine: dict[str, Any] = {key: changed[key] for key in ("device", "workers") if key in changed}
    return (
        settings_from_pairs(TrainSettings, {**primitives(stored), **machine}),
        checkpoint,
        (path.parents[1]),
    )


def _last_checkpoint(settings: TrainSettings) -> Path:
    if isinstance(settings.resume, str):
        path = Path(settings.resume)
        path = path / "weights" / "last.pt" if path.is_dir() else path
        if not path.is_file():
            raise UsageError(f"resume={settings.resume}: there is no such checkpoint")
        return path
    found = Path(settings.project).glob(f"{settings.name}*/weights/last.pt")
    newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise UsageError(
            f"resume: no run with a last.pt in {settings.project}/{settings.name}*; "
            "give its path with resume=path/to/last.pt"
        )
    return newest
