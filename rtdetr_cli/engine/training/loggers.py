"""`logger=`: TensorBoard, Weights & Biases and MLflow behind one small interface.

Projects, servers and accounts are set by the environment variables of these libraries, which alone
send data. results.csv is written in any case (run_log.py).
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from rtdetr_cli.core.console import warn
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.engine.training.run_log import Row

PROJECT = "rtdetr"
"""Default project or experiment."""
KEPT = ("weights/best.pt", "args.yaml", "results.csv", "results.png")
"""Files of a run that are uploaded."""


class Logger(Protocol):
    """Receives the settings, metrics and files of a run.

    Attributes:
        errors: exceptions of its library when it cannot write.
    """

    errors: tuple[type[Exception], ...]

    def start(self, folder: Path, settings: dict[str, object], is_resumed: bool) -> None:
        """Start or resume a run in its folder."""

    def epoch(self, number: int, numbers: Row) -> None:
        """Log the numbers of an epoch, counted from 1."""

    def finish(self, numbers: Row, files: list[Path]) -> None:
        """Log the metrics of the best weights and upload the files of a finished run."""

    def stop(self) -> None:
        """End the log of a run stopped by a signal or an error, which may be resumed later."""


class TensorBoard:
    """Event files in the run folder."""

    errors: tuple[type[Exception], ...] = (OSError,)

    def __init__(self) -> None:
        self._make = _library("tensorboard", "torch.utils.tensorboard").SummaryWriter

    def start(self, folder: Path, settings: dict[str, object], is_resumed: bool) -> None:
        """Open an event file."""
        self._writer = self._make(str(folder))
        if not is_resumed:
            lines = (f"    {key}: {value}" for key, value in settings.items())
            self._writer.add_text("settings", "\n".join(lines))

    def epoch(self, number: int, numbers: Row) -> None:
        """Write each number and flush, so that a killed run keeps its epochs."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, number)
        self._writer.flush()

    def finish(self, numbers: Row, files: list[Path]) -> None:
        """Close the file; the other files are in the same folder."""
        self.stop()

    def stop(self) -> None:
        """Close the file."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE=offline etc."""

    def __init__(self) -> None:
        self._wandb = _library("wandb", "wandb")
        self.errors: tuple[type[Exception], ...] = (self._wandb.errors.Error, OSError)

    def start(self, folder: Path, settings: dict[str, object], is_resumed: bool) -> None:
        """Start a run, or resume the one of the folder."""
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.name,
            dir=str(folder),
            config=settings,
            id=_known(folder / ".wandb-run", is_resumed),
            resume="allow" if is_resumed else None,
        )
        (folder / ".wandb-run").write_text(self._run.id)

    def epoch(self, number: int, numbers: Row) -> None:
        """Log the numbers."""
        self._run.log(numbers, step=number)

    def finish(self, numbers: Row, files: list[Path]) -> None:
        """Log the metrics, and the files as one artifact."""
        self._run.summary.update(numbers)
        artifact = self._wandb.Artifact(f"run-{self._run.id}", type="model")
        for path in files:
            artifact.add_file(str(path))
        self._run.log_artifact(artifact)
        self._run.finish()

    def stop(self) -> None:
        """Mark the run as failed."""
        self._run.finish(exit_code=1)


class MLflow:
    """A run of MLflow: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME etc."""

    def __init__(self) -> None:
        os.environ.setdefault(
            "MLFLOW_DISABLE_TELEMETRY", "true"
        )  # docs/security.md promises no telemetry
        self._mlflow = _library("mlflow", "mlflow")
        failure = self._mlflow.exceptions.MlflowException
        self.errors: tuple[type[Exception], ...] = (failure, OSError)

    def start(self, folder: Path, settings: dict[str, object], is_resumed: bool) -> None:
        """Start a run, or resume the one of the folder."""
        self._client = self._mlflow.MlflowClient()
        known = _known(folder / ".mlflow-run", is_resumed)
        if known:
            self._run = known
            self._client.update_run(known, "RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        self._run = self._client.create_run(number, run_name=folder.name).info.run_id
        (folder / ".mlflow-run").write_text(self._run)
        given = [self._mlflow.entities.Param(key, str(value)) for key, value in settings.items()]
        self._client.log_batch(self._run, params=given)

    def epoch(self, number: int, numbers: Row) -> None:
        """Log the numbers."""
        at, metric = int(1000 * time.time()), self._mlflow.entities.Metric
        values = [metric(name, value, at, number) for name, value in numbers.items()]
        self._client.log_batch(self._run, metrics=values)

    def finish(self, numbers: Row, files: list[Path]) -> None:
        """Log the metrics and the files."""
        self.epoch(0, numbers)
        for path in files:
            self._client.log_artifact(self._run, str(path))
        self._client.set_terminated(self._run)

    def stop(self) -> None:
        """Mark the run as killed."""
        self._client.set_terminated(self._run, "KILLED")


LOGGERS: dict[str, Callable[[], Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


class Loggers:
    """All loggers of a run, in the main process.

    A logger that fails during the run is dropped with a warning and does not end the run.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._loggers = {name: LOGGERS[name]() for name in names}

    def start(self, folder: Path, settings: dict[str, object], is_resumed: bool) -> None:
        """Start all loggers.

        Raises:
            UsageError: a logger cannot write to where its environment points.
        """
        for name, logger in self._loggers.items():
            try:
                logger.start(folder, settings, is_resumed)
            except logger.errors as error:
                raise UsageError(f"logger={name}: {error}") from error

    def epoch(self, number: int, row: Row) -> None:
        """Log the numbers of an epoch, counted from 1."""
        numbers = {name: value for name, value in row.items() if name != "epoch"}
        self._call(lambda logger: logger.epoch(number, numbers))

    def finish(self, metrics: Row, folder: Path) -> None:
        """Log the metrics of the best weights and upload the files of the run."""
        numbers = {f"best/{name}": value for name, value in metrics.items()}
        files = [folder / name for name in KEPT if (folder / name).is_file()]
        self._call(lambda logger: logger.finish(numbers, files))
        self._loggers = {}

    def stop(self) -> None:
        """End all remaining logs of a run that has not finished."""
        self._call(lambda logger: logger.stop())

    def _call(self, action: Callable[[Logger], None]) -> None:
        for name, logger in list(self._loggers.items()):
            try:
                action(logger)
            except logger.errors as error:
                warn(f"logger={name}: {error}; the run continues without it")
                del self._loggers[name]


def _library(extra: str, module: str) -> Any:  # noqa: ANN401  (an untyped module)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"logger={extra} needs the package: pip install 'rtdetr-cli[{extra}]'"
        ) from error


def _known(path: Path, is_resumed: bool) -> str | None:
    """The id of the folder's run in the library if it is resumed."""
    return path.read_text() if is_resumed and path.is_file() else None
