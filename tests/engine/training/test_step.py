"""Non-finite steps change nothing; three in a row leave a record that repeats the last."""

from __future__ import annotations

import pytest
import torch

from rtdetr_cli.cli.main import run
from rtdetr_cli.engine import train
from rtdetr_cli.engine.training import step
from rtdetr_cli.weights.checkpoint import load_checkpoint
from tests.engine.test_train import command, read_rows

from .test_resume import equal


class NotFinite(step.Criterion):
    """Loss terms that are NaN at these steps."""

    steps: tuple[int, ...] = ()

    def __init__(self, config) -> None:
        super().__init__(config=config)
        self.calls = 0

    def forward(self, output, targets):
        terms = super().forward(output, targets)
        self.calls += 1
        factor = float("nan") if self.calls - 1 in self.steps else 1.0
        return {name: factor * value for name, value in terms.items()}


def make_not_finite(steps: set[int], patch: pytest.MonkeyPatch) -> None:
    patch.setattr(train, "Criterion", type("NotFiniteAt", (NotFinite,), {"steps": tuple(steps)}))


def test_a_non_finite_step_is_skipped_and_counted(
    tiny_yaml, squares, tmp_path, monkeypatch, capsys
):
    states = []
    real = train.train_step

    def watched(run, criterion, *batches):
        before = [t.clone() for t in (*run.network.state_dict().values(), *run.ema._slow)]
        losses = real(run, criterion, *batches)
        after = [*run.network.state_dict().values(), *run.ema._slow]
        states.append((losses is None, equal(before, after)))
        return losses

    make_not_finite({1, 2, 4}, monkeypatch)
    monkeypatch.setattr(train, "train_step", watched)
    assert run(command(tiny_yaml, squares, tmp_path, "epochs=2", "batch=2")) == 0
    skipped = [number in {1, 2, 4} for number in range(8)]
    assert states == [(one, one) for one in skipped]
    rows = read_rows(tmp_path / "train")
    assert [row["train/skipped"] for row in rows] == ["2", "1"]
    assert float(rows[0]["train/loss"]) > 0
    assert "steps not finite and skipped: 2" in capsys.readouterr().err


def test_three_non_finite_steps_end_the_run_with_a_record_to_repeat(
    tiny_yaml, squares, tmp_path, monkeypatch, capsys
):
    make_not_finite({3, 4, 5}, monkeypatch)
    assert run(command(tiny_yaml, squares, tmp_path, "epochs=3", "batch=2")) == 5
    error = capsys.readouterr().err.splitlines()[-1]
    path = tmp_path / "train" / "weights" / "flight.pt"
    assert "3 steps in a row were not finite; at step 5 the loss is nan" in error
    assert f"`rtdetr train resume={path}` repeats the step" in error
    training = load_checkpoint(path).training
    assert (training["step"], training["skipped"]) == (5, 2)
    record = training["flight"]
    assert record["batches"][0]["paths"]
    assert record["batches"][0]["images"].shape == (2, 3, 64, 64)
    assert all(torch.isfinite(value).all() for value in training["network"].values())
    make_not_finite({0}, monkeypatch)  # the first step after resuming is that step
    assert run(["train", f"resume={path}"]) == 5
    assert "at step 5 the loss is nan" in capsys.readouterr().err
    make_not_finite(set(), monkeypatch)  # the cause is fixed: the run succeeds
    assert run(["train", f"resume={path}"]) == 0
