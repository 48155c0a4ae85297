"""All parts of one training run, as prepare.py brings them together and train.py moves them on."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.distributed import is_distributed
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.fingerprint import Fingerprint
from rtdetr_cli.data.loader import EvalLoader, TrainLoader
from rtdetr_cli.engine.training.ema import EMA
from rtdetr_cli.engine.training.optim import NORMS
from rtdetr_cli.engine.training.precision import Precision
from rtdetr_cli.engine.training.recipe import Recipe
from rtdetr_cli.engine.training.run_log import Row
from rtdetr_cli.engine.training.signals import StopSignals
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

MAX_SKIPPED = 3
"""Steps in a row that may not be finite, the last of which ends the run."""


@dataclass
class EpochSums:
    """What has been gathered of the epoch that is under way.

    Attributes:
        steps: that are done.
        skipped: steps of these whose loss or gradient was not finite.
        seconds: that they took, those of earlier processes included.
        waited: seconds of these that were spent waiting for data.
        losses: sum over the steps, without the skipped ones, of each loss.
    """

    steps: int = 0
    skipped: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    losses: dict[str, Tensor] = field(default_factory=dict)

    def add(self, losses: dict[str, Tensor] | None) -> None:
        """Count a step; None is a skipped one."""
        self.steps += 1
        if losses is None:
            self.skipped += 1
            return
        for name, value in losses.items():
            self.losses[name] = self.losses.get(name, torch.zeros_like(value)) + value

    def means(self) -> dict[str, float]:
        """Mean of each loss; nothing if every step was skipped."""
        counted = self.steps - self.skipped
        return {f"train/{name}": total.item() / counted for name, total in self.losses.items()}


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: epochs done.
        step: optimizer steps done, skipped ones included.
        skipped: of these, how many were skipped without one that was not, until this one.
        best: best AP so far, -1 before the first validation.
        is_planned: whether the number of epochs is settled; `time` sets it after some of them.
        rows: results.csv so far.
        sums: of the epoch under way.
    """

    epoch: int = 0
    step: int = 0
    skipped: int = 0
    best: float = -1.0
    is_planned: bool = True
    rows: list[Row] = field(default_factory=list)
    sums: EpochSums = field(default_factory=EpochSums)


@dataclass
class Data:
    """The two splits and their batches."""

    train: DetectionDataset
    val: DetectionDataset
    train_batches: TrainLoader
    val_batches: EvalLoader
    fingerprint: Fingerprint


@dataclass
class Run:
    """All parts of one training run.

    Attributes:
        network: the network itself, which is saved and averaged.
        held: what is given back when the training ends: the folder, which is no other process's.
        replica: what a step calls: the network, which beside other processes shares gradients.
        statistics: of the BatchNorms, the tensors that a forward pass moves.
        kept_statistics: what they were before the step, for the case that it is skipped.
    """

    settings: TrainSettings
    run_dir: Path
    device: torch.device
    recipe: Recipe
    data: Data
    network: RTDETRNetwork
    ema: EMA
    optimizer: Optimizer
    preprocessing: Preprocessing
    precision: Precision
    progress: Progress
    stop: StopSignals = field(default_factory=StopSignals)
    held: ExitStack = field(default_factory=ExitStack)
    replica: nn.Module = field(init=False)
    statistics: list[Tensor] = field(init=False)
    kept_statistics: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.replica = self.network
        norms = [module for module in self.network.modules() if isinstance(module, NORMS)]
        self.statistics = [buffer for norm in norms for buffer in norm.buffers()]
        self.kept_statistics = [buffer.clone() for buffer in self.statistics]

    def join_processes(self) -> None:
        """Share gradients with the other processes, where there are any.

        On GPUs the norms see the images of all of them; CPUs have no such norm, so there each
        sees its own, and the main process' statistics are kept.
        """
        if not is_distributed():
            return
        is_gpu = self.device.type == "cuda"
        if is_gpu:
            nn.SyncBatchNorm.convert_sync_batchnorm(self.network)
        self.replica = DistributedDataParallel(
            self.network,
            device_ids=[self.device] if is_gpu else None,
            gradient_as_bucket_view=True,
        )

    def sharing(self, is_last: bool) -> AbstractContextManager[None]:
        """Gradients travel after the last batch of a step only."""
        if is_last or not isinstance(self.replica, DistributedDataParallel):
            return nullcontext()
        return self.replica.no_sync()

    def keep_statistics(self) -> None:
        """Remember the BatchNorms' statistics, which a forward pass moves."""
        torch._foreach_copy_(self.kept_statistics, self.statistics)

    def undo_statistics(self) -> None:
        """Put them back."""
        torch._foreach_copy_(self.statistics, self.kept_statistics)
