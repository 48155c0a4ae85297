"""The state of a training run: prepare.py assembles it, train.py and step.py advance it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
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
from rtdetr_cli.core.structures import Batch
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.fingerprint import Fingerprint
from rtdetr_cli.data.loader import EvalLoader, TrainLoader
from rtdetr_cli.engine.training.cpu_convolutions import speed_up_convolutions
from rtdetr_cli.engine.training.distillation import Distiller
from rtdetr_cli.engine.training.ema import EMA
from rtdetr_cli.engine.training.optim import NORMS, build_optimizer, freeze
from rtdetr_cli.engine.training.pace import Pace
from rtdetr_cli.engine.training.precision import Precision
from rtdetr_cli.engine.training.recipe import Recipe
from rtdetr_cli.engine.training.run_log import Row
from rtdetr_cli.engine.training.signals import StopSignals
from rtdetr_cli.nn.denoising import DenoisingConfig
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

MAX_SKIPPED = 3
"""Consecutive steps with a non-finite gradient after which the run ends."""


@dataclass
class EpochSums:
    """Sums over the steps of the current epoch.

    Attributes:
        steps: steps done.
        skipped: steps skipped because their gradient was not finite.
        seconds: duration of these steps, including those before a resume.
        waited: seconds of these spent waiting for data.
        losses: sum of each loss over the steps that were not skipped.
    """

    steps: int = 0
    skipped: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    losses: dict[str, Tensor] = field(default_factory=dict)

    def add(self, losses: dict[str, Tensor] | None) -> None:
        """Count a step; None if it was skipped."""
        self.steps += 1
        if losses is None:
            self.skipped += 1
            return
        for name, value in losses.items():
            self.losses[name] = self.losses.get(name, torch.zeros_like(value)) + value

    def means(self) -> dict[str, float]:
        """Mean of each loss; empty if every step was skipped."""
        if not self.losses:
            return {}
        totals = torch.stack(list(self.losses.values())).tolist()  # one copy from the device
        counted = self.steps - self.skipped
        return {f"train/{name}": t / counted for name, t in zip(self.losses, totals, strict=True)}


class StepTimer:
    """Adds the duration of each step, and the time spent waiting for its data, to the sums."""

    def __init__(self, sums: EpochSums) -> None:
        self._sums = sums
        self._step_start = time.perf_counter()

    def wait_for(self, steps: Iterator[list[Batch]]) -> Iterator[list[Batch]]:
        """Yield the batches of each step."""
        while True:
            start = time.perf_counter()
            batches = next(steps, None)
            if batches is None:
                return
            self._sums.waited += time.perf_counter() - start
            yield batches

    def end_step(self) -> None:
        """Add the time since the previous step ended."""
        end = time.perf_counter()
        self._sums.seconds, self._step_start = self._sums.seconds + end - self._step_start, end


@dataclass
class Progress:
    """Position of a run.

    Attributes:
        epoch: epochs done.
        step: optimizer steps done, including skipped ones.
        skipped: consecutive skipped steps up to the last one.
        best: best AP so far, -1 before the first validation.
        is_planned: whether the number of epochs is final; `time` sets it after some of them.
        rows: rows of results.csv so far.
        sums: sums of the current epoch.
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
    """The two splits and their batches; those of validation are None with val=false."""

    train: DetectionDataset
    train_batches: TrainLoader
    val: DetectionDataset | None = None
    val_batches: EvalLoader | None = None
    fingerprint: Fingerprint = field(default_factory=dict)


def ignore(event: str) -> None:
    """Nobody listens to the events of a step."""


@dataclass(kw_only=True)
class StepState:
    """Everything that a training step reads and changes.

    The network is made ready for training: denoising, device, memory layout, frozen parts.

    Attributes:
        network: the network itself, which is averaged and saved.
        replica: the module that a step calls: `network`, or its DistributedDataParallel wrapper.
        ema: the averaged weights.
        statistics: BatchNorm buffers, which a forward pass updates.
        kept_statistics: their values before the step, restored if it is skipped.
        notify: called with the name of each event within a step (events.py).
        distiller: the teacher, if there is one; the network then has a projector to its channels.
    """

    settings: TrainSettings
    device: torch.device
    recipe: Recipe
    network: RTDETRNetwork
    precision: Precision
    progress: Progress = field(default_factory=Progress)
    notify: Callable[[str], None] = ignore
    distiller: Distiller | None = None
    replica: nn.Module = field(init=False)
    ema: EMA = field(init=False)
    optimizer: Optimizer = field(init=False)
    statistics: list[Tensor] = field(init=False)
    kept_statistics: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self._place_network()
        freeze(self.network, self.recipe)
        self.replica = self.network
        self.ema = EMA(self.network, self.recipe.ema_decay, self.recipe.ema_ramp)
        self.optimizer = build_optimizer(self.network, self.recipe)
        norms = [module for module in self.network.modules() if isinstance(module, NORMS)]
        self.statistics = [buffer for norm in norms for buffer in norm.buffers()]
        self.kept_statistics = [buffer.clone() for buffer in self.statistics]
        if self.distiller is not None:  # after the average has been copied from the network
            self.distiller.watch(self.network)

    def _place_network(self) -> None:
        settings, network = self.settings, self.network
        network.decoder.denoising = DenoisingConfig(
            settings.num_denoising, settings.label_noise, settings.box_noise
        )
        network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.device.type == "cpu" and self.precision.dtype is None and not settings.compile:
            speed_up_convolutions(network)

    def join_processes(self) -> None:
        """Average gradients over the process group, if there is one.

        On GPUs the BatchNorms become SyncBatchNorms. CPUs have none: each process normalises with
        its own images, and the statistics of the main process are kept.
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

    def gradient_sync(self, is_last: bool) -> AbstractContextManager[None]:
        """Average gradients over processes in the last batch of a step only."""
        if is_last or not isinstance(self.replica, DistributedDataParallel):
            return nullcontext()
        return self.replica.no_sync()

    # torch._foreach_copy_ is private, but copies all buffers in one kernel launch; torch's own
    # optimizers call it, and there is no public equivalent.

    def keep_statistics(self) -> None:
        """Copy the BatchNorm statistics before a forward pass updates them."""
        torch._foreach_copy_(self.kept_statistics, self.statistics)

    def undo_statistics(self) -> None:
        """Restore the BatchNorm statistics from before the step."""
        torch._foreach_copy_(self.statistics, self.kept_statistics)


@dataclass(kw_only=True)
class Run(StepState):
    """A training run: the state of its steps, its data and its folder.

    Attributes:
        licence: of the weights, as in a checkpoint.
        run_dir: the run folder, set once it has been created.
        stop: signals that ask to stop.
        pace: how long the run takes.
        held: resources released at the end of training, such as the lock of the folder.
    """

    data: Data
    preprocessing: Preprocessing
    licence: str = ""
    run_dir: Path = Path()
    stop: StopSignals = field(default_factory=StopSignals)
    pace: Pace = field(default_factory=Pace)
    held: ExitStack = field(default_factory=ExitStack)
