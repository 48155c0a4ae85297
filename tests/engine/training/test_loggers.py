"""TensorBoard, W&B (offline) and MLflow (SQLite) log a run; one that fails is dropped."""

from __future__ import annotations

import re
import sys

import pytest

from rtdetr_cli import RTDETR
from rtdetr_cli.cli.main import run
from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.engine.training.loggers import LOGGERS, Loggers
from tests.engine.test_train import command, read_rows, stop_in_epoch

from .test_events import small

THEIR_WARNINGS = pytest.mark.filterwarnings("ignore")  # of the packages' own imports


def test_tensorboard_gets_every_number_of_every_epoch(tiny_yaml, squares, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra [tensorboard] is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    RTDETR(str(tiny_yaml)).train(**small(squares, tmp_path, epochs=2, logger=["tensorboard"]))
    events = EventAccumulator(str(tmp_path / "train")).Reload()
    written = [event.value for event in events.Scalars("train/loss")]
    logged = [float(row["train/loss"]) for row in read_rows(tmp_path / "train")]
    assert written == pytest.approx(logged, rel=1e-5)
    assert "settings/text_summary" in events.Tags()["tensors"]


@THEIR_WARNINGS
def test_mlflow_has_one_run_for_a_resumed_training(tiny_yaml, squares, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra [mlflow] is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    with monkeypatch.context() as patch:
        stop_in_epoch(3, patch)
        assert run(command(tiny_yaml, squares, tmp_path, "epochs=3", "logger=mlflow")) == 130
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("rtdetr")
    (begun,) = client.search_runs([experiment.experiment_id])
    assert begun.info.status == "KILLED"
    assert run(["train", "resume=true", f"project={tmp_path}"]) == 0
    (whole,) = client.search_runs([experiment.experiment_id])
    assert (whole.info.status, whole.info.run_name) == ("FINISHED", "train")
    assert whole.data.params["imgsz"] == "64"
    written = client.get_metric_history(whole.info.run_id, "train/loss")
    rows = read_rows(tmp_path / "train")
    assert [metric.step for metric in written] == [1, 2, 3]
    assert [m.value for m in written] == pytest.approx([float(r["train/loss"]) for r in rows], 1e-5)
    best = max(float(row["metrics/AP"]) for row in rows)
    assert whole.data.metrics["best/AP"] == pytest.approx(best, abs=1e-4)
    kept = {file.path for file in client.list_artifacts(whole.info.run_id)}
    assert kept == {"best.pt", "args.yaml", "results.csv"}


@THEIR_WARNINGS
def test_wandb_writes_an_offline_run_into_the_run_folder(tiny_yaml, squares, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="the extra [wandb] is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    assert run(command(tiny_yaml, squares, tmp_path, "epochs=2", "logger=wandb")) == 0
    wandb.teardown()  # its own process writes the file
    (folder,) = (tmp_path / "train" / "wandb").glob("offline-run-*")
    name = (tmp_path / "train" / ".wandb-run").read_text()
    written = (folder / f"run-{name}.wandb").read_bytes()
    found = re.findall(rb"\ntrain/loss\x82\x01.([\d.]+)", written)  # a field of a protobuf each
    rows = read_rows(tmp_path / "train")
    losses = [float(value) for value in dict.fromkeys(found)]
    assert losses == pytest.approx([float(row["train/loss"]) for row in rows], 1e-5)
    assert b"best/AP" in written
    assert b"best.pt" in written  # the artifact


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_an_absent_package_is_said_before_anything_is_written(
    name, tiny_yaml, squares, tmp_path, monkeypatch, capsys
):
    for module in ("torch.utils.tensorboard", "wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, module, None)
    assert run(command(tiny_yaml, squares, tmp_path / "runs", f"logger={name}")) == 2
    said = capsys.readouterr().err
    assert f"logger={name} needs the package: pip install 'rtdetr-cli[{name}]'" in said
    assert not (tmp_path / "runs").exists()


class Failing:
    """A server that goes away at an epoch; 0 is at the start."""

    errors = (ConnectionError,)
    at = 0

    def __init__(self) -> None:
        self.calls = []

    def start(self, folder, settings, is_resumed) -> None:
        self.epoch(0, settings)

    def epoch(self, number, numbers) -> None:
        self.calls.append((number, numbers))
        if number == self.at:
            raise ConnectionError("no route to server")

    def finish(self, numbers, files) -> None:
        self.calls.append((numbers, files))

    def stop(self) -> None:
        self.calls.append("stopped")


def test_a_logger_that_cannot_begin_ends_the_run_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setitem(LOGGERS, "wandb", Failing)
    with pytest.raises(UsageError, match="logger=wandb: no route to server"):
        Loggers(["wandb"]).start(tmp_path, {}, is_resumed=False)


def test_a_logger_that_fails_later_is_left_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    early, late = Failing(), Failing()
    early.at, late.at = 2, 99
    monkeypatch.setitem(LOGGERS, "wandb", lambda: early)
    monkeypatch.setitem(LOGGERS, "mlflow", lambda: late)
    (tmp_path / "results.csv").touch()
    loggers = Loggers(["wandb", "mlflow"])
    loggers.start(tmp_path, {"batch": 4}, is_resumed=False)
    for number in (1, 2, 3):
        loggers.epoch(number, {"epoch": number, "lr": 0.5})
    loggers.finish({"AP": 0.25}, tmp_path)
    loggers.stop()  # no logger is left
    assert (
        "logger=wandb: no route to server; the run continues without it" in capsys.readouterr().err
    )
    assert early.calls == [(0, {"batch": 4}), (1, {"lr": 0.5}), (2, {"lr": 0.5})]
    assert late.calls[3:] == [(3, {"lr": 0.5}), ({"best/AP": 0.25}, [tmp_path / "results.csv"])]


def test_several_loggers_are_a_list_and_a_wrong_one_is_named():
    def read(text: str) -> TrainSettings:
        return settings_from_pairs(TrainSettings, {"data": "x", "logger": text})

    assert read("tensorboard,mlflow").logger == ("tensorboard", "mlflow")
    assert read("[wandb]").logger == ("wandb",)
    assert read("none").logger is None
    with pytest.raises(UsageError, match="did you mean wandb"):
        read("wandbb")
