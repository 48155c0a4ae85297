"""A training state is used only if all of it is what its settings and its network need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rtdetr_cli.cli.main import run
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.engine.training.prepare import prepare
from rtdetr_cli.engine.training.resume import LAST, PREVIOUS, run_checkpoint, save_last
from rtdetr_cli.engine.training.state_check import check_training
from rtdetr_cli.engine.training.step import train_step
from rtdetr_cli.loss.criterion import Criterion
from rtdetr_cli.weights.checkpoint import load_checkpoint, save_checkpoint
from tests.engine.conftest import write_architecture

from .test_resume import equal

OPTIMIZERS = [
    "adamw",
    "sgd",
    pytest.param(
        "muon",
        marks=pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch before 2.9"),
    ),
]


def stepped(squares, tiny_config, project: Path, optimizer: str):
    """A run after its first step, saved."""
    settings = TrainSettings(
        model=str(write_architecture(tiny_config, project / "tiny.yaml")),
        data=str(squares / "data.yaml"),
        project=str(project),
        optimizer=optimizer,
        lr=1e-3,
        imgsz=64,
        batch=2,
        epochs=2,
        device="cpu",
        workers=0,
        amp="off",
    )
    found = prepare(settings)
    batch = next(iter(found.data.train_batches))
    found.progress.sums.add(train_step(found, Criterion(), batch))
    found.progress.sums.seconds = 1.0
    save_last(found.run_dir / "weights", run_checkpoint(found))
    found.held.close()
    return found


@pytest.fixture(scope="module")
def saved(squares, tiny_config, tmp_path_factory) -> Path:
    """The last.pt of a run with AdamW after one step."""
    found = stepped(squares, tiny_config, tmp_path_factory.mktemp("saved"), "adamw")
    return found.run_dir / "weights" / LAST


@pytest.fixture
def state(saved):
    """The checkpoint, to be damaged."""
    return load_checkpoint(saved)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_comes_back_as_it_was(optimizer, squares, tiny_config, tmp_path):
    before = stepped(squares, tiny_config, tmp_path, optimizer)
    after = prepare(TrainSettings(resume=str(before.run_dir), workers=0))
    after.held.close()
    assert equal(after.optimizer.state_dict(), before.optimizer.state_dict())
    assert equal(after.network.state_dict(), before.network.state_dict())
    assert equal(after.ema.network.state_dict(), before.ema.network.state_dict())
    assert after.progress.step == 1


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_moments_of_another_shape_are_refused(optimizer, squares, tiny_config, tmp_path):
    """The fused kernels would read and write past their end."""
    path = stepped(squares, tiny_config, tmp_path, optimizer).run_dir / "weights" / LAST
    checkpoint = load_checkpoint(path)
    moments = checkpoint.training["optimizer"]["state"][0]
    kind = "exp_avg" if "exp_avg" in moments else "momentum_buffer"
    moments[kind] = torch.zeros(3)
    with pytest.raises(
        WeightsError, match=rf"its {kind} of .* is \(3,\) in torch\.float32 instead"
    ):
        check_training(checkpoint, "last.pt")


GONE = object()
"""In the place of a value: the key is taken out."""


def change(state: dict, keys: tuple, to: object) -> None:
    """Put another value into a state; a function makes it of the one before."""
    *path, last = keys
    for key in path:
        state = state[key]
    if to is GONE:
        del state[last]
    else:
        state[last] = to(state[last]) if isinstance(to, Callable) else to


def spoiled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """A tensor whose first value is this one."""

    def spoil(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[0] = value
        return tensor

    return spoil


NAN = float("nan")
NORM = "backbone.stem.stem1.bn"
MOMENT = ("optimizer", "state", 0)
GROUP = ("optimizer", "param_groups", 0)


@pytest.mark.parametrize(
    ("keys", "to", "sentence"),
    [
        (("scaler",), GONE, "there is no scaler in its training state"),
        (("x",), 1, "its training state has x, which this version of rtdetr does not write"),
        (("settings", "cfg"), "/dev/zero", "its settings has cfg, which this version"),
        (("settings", "lr"), "fast", "lr must be a number, found 'fast'"),
        (("settings", "data"), "a\0b", "its settings hold a NUL character"),
        (("settings", "workers"), 10**6, "workers must be at most 1024"),
        (("settings", "freeze"), "nose", "freeze: the network has no part nose"),
        (("settings", "seed"), GONE, "there is no seed in its settings"),
        (("fingerprint", "train"), 7, "its fingerprint of train must be a mapping, found 7"),
        (("step",), -1, "its step must be a whole number from 0"),
        (("step",), 1.0, "its step must be a whole number from 0 .*, found 1.0"),
        (("step",), 2, "its step 2 is impossible after 0 epochs and 1 steps"),
        (("epoch",), 3, "its epoch must be a whole number from 0 to 2, found 3"),
        (("skipped",), 3, "its skipped must be a whole number from 0 to 2"),
        (("best",), NAN, "its best must be a number from -1 to 1, found nan"),
        (("ema_steps",), 2, "its ema_steps must be a whole number from 0 to 1"),
        (("is_planned",), None, "its is_planned must be true or false, found None"),
        (("rows",), [{}], "its rows are not those of its 0 epochs"),
        (("sums", "seconds"), 0.0, "its sums of 1 steps, 0 of them skipped, are impossible"),
        (("sums", "skipped"), 1, "its sums of 1 steps, 1 of them skipped, are impossible"),
        (("sums", "losses", "loss"), 0.5, "its sum of loss is not a single number"),
        (("scaler",), {"scale": 1.0}, "there is no _growth_tracker in its scaler"),
        (("network", f"{NORM}.bias"), GONE, f"there is no {NORM}.bias in its network"),
        (("network", f"{NORM}.bias"), spoiled(NAN), "its network cannot be used: 1 of its"),
        (("network", f"{NORM}.running_var"), spoiled(-1), "must not be negative, found -1"),
        (
            ("network", f"{NORM}.bias"),
            torch.Tensor.double,
            r"is \(4,\) in torch.float64 instead of \(4,\) in torch.float32",
        ),
        ((*MOMENT, "exp_avg"), spoiled(NAN), "its optimizer cannot be used: 1 of its"),
        ((*MOMENT, "exp_avg_sq"), spoiled(-1), "exp_avg_sq must not be negative, found -1"),
        ((*MOMENT, "step"), 5, "its step of .* is 5 instead of a tensor"),
        ((*MOMENT, "step"), torch.tensor(0.0), "is not between 1 and the run's"),
        ((*MOMENT, "step"), torch.tensor(NAN), "is not between 1 and the run's"),
        ((*MOMENT, "exp_avg"), GONE, "there is no exp_avg in its optimizer's state of"),
        (("optimizer", "state", 9999), {}, "its optimizer has no parameter 9999"),
        (("optimizer", "param_groups"), [], "its optimizer does not have the 4 groups of its"),
        ((*GROUP, "lr"), NAN, "its lr must be a number from 0 to .*, found nan"),
        ((*GROUP, "lr"), "1", "its lr must be a number from 0 to .*, found 1"),
        ((*GROUP, "initial_lr"), GONE, "there is no initial_lr in its optimizer's group"),
        ((*GROUP, "weight_decay"), -1.0, "its weight_decay is not the one of its settings"),
        ((*GROUP, "betas"), (2.0, 0.9), "its betas is not the one of its settings"),
        ((*GROUP, "params"), lambda found: found[1:], "its params is not the one of its settings"),
    ],
)
def test_a_part_that_is_wrong_is_named(keys, to, sentence, saved):
    checkpoint = load_checkpoint(saved)
    change(checkpoint.training, keys, to)
    with pytest.raises(WeightsError, match=f"^last.pt cannot be resumed: .*{sentence}") as caught:
        check_training(checkpoint, "last.pt")
    assert "\n" not in str(caught.value)


@pytest.fixture
def damaged(saved, tmp_path) -> Path:
    """A copy of the run whose last.pt has moments of another shape."""
    weights = tmp_path / "runs" / "train" / "weights"
    checkpoint = load_checkpoint(saved)
    weights.mkdir(parents=True)
    save_checkpoint(weights / PREVIOUS, checkpoint)
    change(checkpoint.training, (*MOMENT, "exp_avg"), torch.zeros(3))
    save_checkpoint(weights / LAST, checkpoint)
    return weights / LAST


def test_the_state_before_is_taken_where_the_last_one_is_wrong(damaged, capsys):
    found = prepare(TrainSettings(resume=str(damaged), workers=0))
    found.held.close()
    assert found.progress.step == 1
    said = capsys.readouterr().err
    assert "its exp_avg of" in said
    assert "continuing from the previous state" in said
    assert damaged.with_name("last-damaged.pt").is_file()


def test_without_a_state_before_the_command_ends_with_one_sentence(damaged, capsys):
    damaged.with_name(PREVIOUS).unlink()
    assert run(["train", f"resume={damaged}"]) == 4
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "last.pt cannot be resumed: its exp_avg of" in lines[0]
    damaged.with_name(PREVIOUS).write_bytes(damaged.read_bytes())
    assert run(["train", f"resume={damaged}"]) == 4
    assert "the previous state cannot be used either" in capsys.readouterr().err


def test_a_state_outside_of_a_run_folder_is_refused(saved, tmp_path, capsys):
    """Its folder would be written to, and this may be anything that a stranger's file is in."""
    (tmp_path / LAST).write_bytes(saved.read_bytes())
    before = sorted(tmp_path.parent.iterdir())
    assert run(["train", f"resume={tmp_path / LAST}"]) == 2
    assert "is not in a run folder; move it to the folder weights" in capsys.readouterr().err
    assert sorted(tmp_path.parent.iterdir()) == before


def test_what_a_state_names_elsewhere_is_neither_read_nor_written(saved, tmp_path):
    checkpoint = load_checkpoint(saved)
    for key in ("project", "name", "model", "recipe"):
        checkpoint.training["settings"][key] = str(tmp_path / "elsewhere" / "x.yaml")
    path = tmp_path / "runs" / "train" / "weights" / LAST
    save_checkpoint(path, checkpoint)
    found = prepare(TrainSettings(resume=str(path), workers=0))
    found.held.close()
    assert found.run_dir == tmp_path / "runs" / "train"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "source={data}/images/val/0.png"],
        ["val", "data={data}/data.yaml"],
        ["train", "data={data}/data.yaml"],
        ["export", "format=onnx"],
        ["info"],
        ["convert", "out=x.pt"],
        ["benchmark", "formats=torch"],
    ],
    ids=lambda words: words[0],
)
def test_weights_that_are_not_finite_are_refused(
    words, saved, squares, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    checkpoint = load_checkpoint(saved)
    checkpoint.weights["decoder.dec_score_head.0.bias"][:] = NAN
    save_checkpoint(tmp_path / "nan.pt", checkpoint)
    mode, *keys = (word.format(data=squares) for word in words)
    assert run([mode, "model=nan.pt", *keys]) == 4
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error")]
    assert len(error) == 1
    assert "hold values that are not finite (NaN or infinite), the first is decoder.de" in error[0]
