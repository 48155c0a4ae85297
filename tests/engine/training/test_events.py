"""Callbacks see every event of a run with its state, and may end it; one that raises saves it."""

from __future__ import annotations

import pickle

import pytest
import torch

from rtdetr_cli import RTDETR
from rtdetr_cli.core.callbacks import TRAIN_EVENTS, VAL_EVENTS
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.engine.training.events import TrainState
from rtdetr_cli.weights.checkpoint import load_checkpoint
from tests.engine.test_train import read_rows


def small(squares, tmp_path, **more: object) -> dict[str, object]:
    return {
        "data": str(squares / "data.yaml"), "project": str(tmp_path), "imgsz": 64, "batch": 4,
        "workers": 0, "device": "cpu", "plots": False, **more,
    }  # fmt: skip


def test_a_callback_sees_every_epoch_and_may_end_the_run(tiny_yaml, squares, tmp_path):
    model, seen = RTDETR(str(tiny_yaml)), []

    def watch(state):
        seen.append((state.epoch, state.metrics["train/loss"] > 0, state.args.epochs))
        state.stop = state.epoch == 1

    model.add_callback("on_train_start", lambda state: seen.append(state.save_dir.name))
    model.add_callback("on_fit_epoch_end", watch)
    model.add_callback("on_train_end", lambda state: seen.append("AP50" in state.metrics))
    model.train(**small(squares, tmp_path, epochs=9))
    assert seen == ["train", (0, True, 9), (1, True, 9), True]
    assert len(read_rows(tmp_path / "train")) == 2


def test_all_events_occur_in_their_order(tiny_yaml, squares, tmp_path):
    model, seen = RTDETR(str(tiny_yaml)), []
    for event in (*TRAIN_EVENTS, *VAL_EVENTS):
        model.add_callback(event, lambda _, event=event: seen.append(event))
    model.train(**small(squares, tmp_path, epochs=2))
    step = [
        "on_train_batch_start", "on_before_zero_grad", "optimizer_step", "on_params_update",
        "on_train_batch_end",
    ]  # fmt: skip
    val = ["on_val_start", "on_val_batch_start", "on_val_batch_end", "on_val_end"]
    epoch = [
        "on_train_epoch_start", *step * 2, "on_train_epoch_end",  # 9 images in batches of 4: 2
        *val, "on_model_save", "on_fit_epoch_end",
    ]  # fmt: skip
    start = ["on_pretrain_routine_start", "on_pretrain_routine_end", "on_train_start"]
    assert seen == [*start, *epoch * 2, *val, "on_train_end", "teardown"]


def test_the_state_has_the_names_of_a_trainer(tiny_yaml, squares, tmp_path):
    model, seen = RTDETR(str(tiny_yaml)), {}

    def before(state):
        seen["before"] = (state.args.imgsz, state.epochs, state.save_dir)
        with pytest.raises(AttributeError, match="the run folder exists from on_pretrain"):
            _ = state.best
        with pytest.raises(AttributeError, match="from its start to its end only"):
            _ = state.model

    def inside(state):
        seen["gradient"] = sum(p.grad.abs().sum() for p in state.model.parameters()) > 0
        seen["batch"] = [len(batch.images) for batch in state.batch]

    def after(state):
        seen["loss"], seen["items"] = state.loss.item(), set(state.loss_items)
        seen["tloss"], seen["lr"] = set(state.tloss), set(state.lr) >= {"lr/pg0", "lr/pg1"}
        seen["optimizer"] = isinstance(state.optimizer, torch.optim.Optimizer)
        seen["ema"] = state.ema.network is not state.model

    def end(state):
        seen["best"], seen["last"] = state.best.is_file(), state.last.is_file()
        seen["csv"] = state.csv.is_file()
        seen["fitness"] = state.fitness == state.best_fitness == state.metrics["metrics/AP"]

    model.add_callback("on_pretrain_routine_start", before)
    model.add_callback("optimizer_step", inside)
    model.add_callback("on_train_batch_end", after)
    model.add_callback("on_fit_epoch_end", end)
    model.train(**small(squares, tmp_path, epochs=1, batch=3))
    losses = {"loss", "loss_vfl", "loss_bbox", "loss_giou"}
    assert seen.pop("before") == (64, 1, None)
    assert seen.pop("batch") == [3]
    assert seen.pop("loss") > 0
    assert seen.pop("items") == losses
    assert seen.pop("tloss") == {f"train/{name}" for name in losses}
    assert seen == dict.fromkeys(seen, True)
    assert len(seen) == 8
    kept = pickle.loads(pickle.dumps(model.trainer))
    assert kept.best == tmp_path / "train" / "weights" / "best.pt"
    assert (kept.epoch, kept.epochs, kept.batch) == (0, 1, [])
    with pytest.raises(AttributeError, match="from its start to its end only"):
        _ = kept.model


def test_a_callback_reads_the_metrics_of_the_validation(tiny_yaml, squares, tmp_path):
    model, seen = RTDETR(str(tiny_yaml)), []
    model.add_callback(
        "on_fit_epoch_end",
        lambda state: seen.append((state.validator.metrics.box.map, state.fitness)),
    )
    model.train(**small(squares, tmp_path, epochs=1))
    assert seen[0][0] == pytest.approx(seen[0][1], abs=1e-4)  # results.csv has rounded numbers
    assert model.trainer.validator is None


def test_a_callback_that_unfreezes_is_refused(tiny_yaml, squares, tmp_path):
    """As the guide of Ultralytics on trainers does; here it would have no effect."""
    model = RTDETR(str(tiny_yaml))
    model.add_callback("on_train_epoch_start", lambda state: state.model.requires_grad_(True))
    with pytest.raises(UsageError, match=r"unfreezes backbone\..* is not in the optimizer"):
        model.train(**small(squares, tmp_path, epochs=1, freeze="backbone"))


@pytest.mark.parametrize("event", ["on_train_batch_start", "on_train_batch_end"])
def test_a_callback_that_raises_saves_the_run_which_resumes_to_the_same_weights(
    event, tiny_yaml, squares, tmp_path, capsys
):
    keys = {"epochs": 2, "batch": 3, "val_every": 2}
    RTDETR(str(tiny_yaml)).train(**small(squares, tmp_path / "whole", **keys))
    model, calls, ended = RTDETR(str(tiny_yaml)), [], []

    def fail(state: TrainState) -> None:
        calls.append(event)
        if len(calls) == 2:
            raise ZeroDivisionError("the user's bug")

    model.add_callback(event, fail)
    model.add_callback("teardown", lambda state: ended.append(state.epoch))
    with pytest.raises(ZeroDivisionError, match="the user's bug"):
        model.train(**small(squares, tmp_path / "broken", **keys))
    assert ended == [0]
    folder = tmp_path / "broken" / "train"
    printed = capsys.readouterr().err
    assert f"a callback of {event} raised; `rtdetr train resume={folder}` continues" in printed
    steps = load_checkpoint(folder / "weights" / "last.pt").training["sums"]["steps"]
    assert steps == (1 if event == "on_train_batch_start" else 2)
    RTDETR(str(tiny_yaml)).train(resume=str(folder), device="cpu")
    whole, resumed = (
        load_checkpoint(tmp_path / name / "train" / "weights" / "last.pt")
        for name in ("whole", "broken")
    )
    assert all(torch.equal(whole.weights[name], value) for name, value in resumed.weights.items())


def test_a_callback_that_raises_inside_a_step_loses_that_step_only(tiny_yaml, squares, tmp_path):
    model = RTDETR(str(tiny_yaml))

    def fail(state):
        raise ZeroDivisionError

    model.add_callback("optimizer_step", fail)
    with pytest.raises(ZeroDivisionError):
        model.train(**small(squares, tmp_path, epochs=1))
    state = load_checkpoint(tmp_path / "train" / "weights" / "last.pt").training
    assert state["step"] == 0


def test_listening_changes_no_weight(tiny_yaml, squares, tmp_path):
    for name in ("alone", "watched"):
        model = RTDETR(str(tiny_yaml))
        for event in TRAIN_EVENTS if name == "watched" else ():
            model.add_callback(event, lambda state: vars(state).copy())
        model.train(**small(squares, tmp_path / name, epochs=1))
    alone, watched = (
        load_checkpoint(tmp_path / name / "train" / "weights" / "last.pt").weights
        for name in ("alone", "watched")
    )
    assert all(torch.equal(alone[name], watched[name]) for name in alone)
