"""Callbacks see every event of a run and may end it."""

from __future__ import annotations

import pytest

from rtdetr_cli import RTDETR
from rtdetr_cli.core.errors import UsageError
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


def test_an_unknown_event_is_named(tiny_yaml):
    with pytest.raises(UsageError, match="did you mean on_train_end"):
        RTDETR(str(tiny_yaml)).add_callback("on_train_ends", print)
