"""Saves a training run so that it can go on as if it had not been stopped.

No generator's state is stored: what is random in a step follows from (seed, step), what is random
in a picture from (seed, epoch, index).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW

from rtdetr_cli.config.given import settings_from_pairs
from rtdetr_cli.config.settings import TrainSettings
from rtdetr_cli.core.console import say
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.data.fingerprint import Fingerprint
from rtdetr_cli.engine.ema import EMA
from rtdetr_cli.engine.last import LAST, PREVIOUS, open_last, remove_leftovers
from rtdetr_cli.engine.run_log import Row, primitives
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint, stored

FOUND_BY = {"resume", "project", "name", "exist_ok"}
"""Keys that say where the stopped run is."""
CHANGEABLE = {"device", "workers", "data", "save_steps", "plots", "json"}
"""Keys that a resumed run may give anew: they change no number."""


@dataclass
class EpochSums:
    """What has been gathered of the epoch that is under way.

    Attributes:
        batches: that are done.
        seconds: that they took, those of earlier processes included.
        waited: seconds of these that were spent waiting for data.
        losses: sum over the batches of each loss.
    """

    batches: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    losses: dict[str, Tensor] = field(default_factory=dict)

    def add(self, losses: dict[str, Tensor]) -> None:
        """Count a batch."""
        self.batches += 1
        for name, value in losses.items():
            self.losses[name] = self.losses.get(name, torch.zeros_like(value)) + value


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: epochs done.
        step: optimizer steps done.
        best: best AP so far, -1 before the first validation.
        rows: results.csv so far.
        sums: of the epoch under way.
    """

    epoch: int = 0
    step: int = 0
    best: float = -1.0
    rows: list[Row] = field(default_factory=list)
    sums: EpochSums = field(default_factory=EpochSums)


def training_state(
    settings: TrainSettings,
    data: Fingerprint,
    progress: Progress,
    network: RTDETRNetwork,
    ema: EMA,
    optimizer: AdamW,
) -> dict[str, Any]:
    """Everything beside the averaged weights that the next step depends on."""
    return {
        "settings": primitives(settings),
        "fingerprint": data,
        "epoch": progress.epoch,
        "step": progress.step,
        "best": progress.best,
        "rows": progress.rows,
        "sums": {**vars(progress.sums), "losses": stored(progress.sums.losses)},
        "network": network.state_dict(),
        "ema_steps": ema.steps,
        "optimizer": optimizer.state_dict(),
    }


def restore(
    state: dict[str, Any],
    network: RTDETRNetwork,
    ema: EMA,
    weights: dict[str, Tensor],
    optimizer: AdamW,
) -> Progress:
    """Put a saved state back."""
    network.load_state_dict(state["network"])
    ema.network.load_state_dict(weights)
    ema.steps = state["ema_steps"]
    optimizer.load_state_dict(state["optimizer"])
    _match_layouts(optimizer)
    device = next(network.parameters()).device
    sums = EpochSums(**state["sums"])
    sums.losses = {name: value.to(device) for name, value in sums.losses.items()}
    return Progress(state["epoch"], state["step"], state["best"], state["rows"], sums)


def _match_layouts(optimizer: AdamW) -> None:
    """Give each moment the memory layout of its parameter.

    Files hold contiguous tensors; the fused kernel walks the raw memory of parameter and moments
    side by side, so that a channels-last parameter would meet its neighbours' moments.
    """
    for parameter, moments in optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            moments[name] = torch.empty_like(parameter).copy_(moments[name])


def seed_step(seed: int, step: int) -> None:
    """Make what a step draws (denoising, dropout) follow from (seed, step) alone."""
    mixed = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)
    torch.manual_seed(int(mixed[0]))


def open_stopped_run(settings: TrainSettings) -> tuple[TrainSettings, Checkpoint, Path]:
    """Find the run that `resume` means.

    Returns:
        Its settings, its checkpoint and its folder.

    Raises:
        UsageError: there is none, or a key differs from what the run was started with.
        WeightsError: the checkpoint is damaged or holds no training state.
    """
    path = _last_checkpoint(settings)
    folder = path.parent.parent
    checkpoint = open_last(path)
    state = checkpoint.training or {}
    stored = settings_from_pairs(TrainSettings, state["settings"])
    given = _given(settings) - FOUND_BY
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


def _given(settings: TrainSettings) -> set[str]:
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
            f"and {state['sums']['batches']} batches"
        )


def _last_checkpoint(settings: TrainSettings) -> Path:
    if isinstance(settings.resume, str):
        path = Path(settings.resume)
        path = path / "weights" / LAST if path.is_dir() else path
        if not path.is_file() and not path.with_name(PREVIOUS).is_file():
            raise UsageError(f"resume={settings.resume}: there is no such checkpoint")
        return path
    if Path(settings.model).name == LAST:
        return Path(settings.model)
    found = Path(settings.project).glob(f"{settings.name}*/weights/last*.pt")
    newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise UsageError(
            f"resume: no run with a last.pt in {settings.project}/{settings.name}*; "
            "give its path with resume=path/to/last.pt"
        )
    return newest.with_name(LAST)
