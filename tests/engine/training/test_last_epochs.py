"""The restart from the best weights and the late matcher, and that a resumed run repeats both."""

from __future__ import annotations

import pytest
import torch

from rtdetr_cli.cli.main import run
from rtdetr_cli.engine import train as loop
from rtdetr_cli.engine.training import last_epochs
from rtdetr_cli.loss.matcher import HungarianMatcher, IoUMatcher
from rtdetr_cli.weights.checkpoint import load_checkpoint
from tests.engine.conftest import write_architecture
from tests.engine.test_train import command
from tests.engine.training.test_resume import ends_alike, raise_at

KEYS = ("epochs=4", "batch=4", "save_steps=1", "save_period=1", "amp=off", "ema_decay=0.5")
RESTART = (
    "multi_scale=false",
    "clean_epochs=2",
    "restart=true",
    "restart_ema_decay=0.3",
    "iou_matching=0.25",
)
APS = {0: 0.2, 1: 0.1, 2: 0.3, 3: 0.25}  # of the epochs, counted from 0; 2 steps each


@pytest.fixture(scope="module")
def model(tiny_config, tmp_path_factory):
    return write_architecture(tiny_config, tmp_path_factory.mktemp("tiny") / "tiny.yaml")


@pytest.fixture(autouse=True)
def _scripted_aps(monkeypatch):
    """The AP of each epoch is given, so that the best of the first two is the first."""
    script_aps(monkeypatch)


def script_aps(patch):
    real = loop.validate

    def validate(run, criterion, events, is_late):
        metrics, row = real(run, criterion, events, is_late)
        if metrics is not None:
            metrics.stats["AP"] = APS[run.progress.epoch]
        return metrics, row

    patch.setattr(loop, "validate", validate)


@pytest.fixture(scope="module")
def whole(squares, tmp_path_factory, model):
    """The uninterrupted run, and the matcher and decay of each of its epochs."""
    project, seen = tmp_path_factory.mktemp("whole"), []

    def noting(run, criterion):
        last_epochs.enter_epoch(run, criterion)
        seen.append((type(criterion.matcher), run.ema._decay))

    with pytest.MonkeyPatch.context() as patch:
        script_aps(patch)
        patch.setattr(loop, "enter_epoch", noting)
        assert run(command(model, squares, project, *KEYS, *RESTART)) == 0
    return project, seen


def weights(project, name):
    return load_checkpoint(project / "train" / "weights" / name)


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_matcher_and_decay_follow_the_epoch(whole):
    first, restarted = (HungarianMatcher, 0.5), (HungarianMatcher, 0.3)
    assert whole[1] == [first, first, restarted, (IoUMatcher, 0.3)]


def test_a_run_that_dies_around_the_restart_resumes_bit_identical(
    whole, model, squares, tmp_path, monkeypatch, capsys
):
    """Steps 2 and 3 are the second epoch, after which the first one's weights are loaded."""
    moments = (3, 4, 5, 6)
    raise_at(set(moments), KeyboardInterrupt, monkeypatch)
    assert run(command(model, squares, tmp_path, *KEYS, *RESTART)) == 130
    for step in moments:
        if step == 4:
            last, best = weights(tmp_path, "last.pt"), weights(tmp_path, "epoch1.pt").weights
            state = last.training
            assert (state["epoch"], state["step"], state["best"]) == (2, 4, 0.2)
            assert same(last.weights, best)
            assert same(state["network"], best)
            assert not same(weights(tmp_path, "epoch2.pt").weights, best)
        code = run(["train", "resume=true", f"project={tmp_path}"])
    assert code == 0
    assert ends_alike(tmp_path, whole[0])
    assert same(weights(tmp_path, "best.pt").weights, weights(tmp_path, "epoch3.pt").weights)
    text = capsys.readouterr().err
    assert "off in the last 2 epochs, which start from the best weights" in text
    assert "the last epochs start from the best weights, AP 0.2000, EMA 0.3" in text


def test_a_run_that_dies_between_best_and_last_resumes_bit_identical(
    whole, model, squares, tmp_path, monkeypatch
):
    """At the ends of epochs 1 to 3 best.pt is already that of an epoch that last.pt has not."""
    real, left = loop.restart_if_due, {1, 2, 3}

    def dying(run):
        if run.progress.epoch in left:
            left.remove(run.progress.epoch)
            raise KeyboardInterrupt
        real(run)

    monkeypatch.setattr(loop, "restart_if_due", dying)
    assert run(command(model, squares, tmp_path, *KEYS, *RESTART)) == 130
    codes = [run(["train", "resume=true", f"project={tmp_path}"]) for _ in range(3)]
    assert codes == [130, 130, 0]
    assert ends_alike(tmp_path, whole[0])


def test_without_a_validated_epoch_the_weights_are_kept(model, squares, tmp_path, capsys):
    keys = ("epochs=2", "batch=8", "val_every=2", "clean_epochs=1", "restart=true", "amp=off")
    assert run(command(model, squares, tmp_path, *keys)) == 0
    assert "no epoch has been validated yet, so the last epochs continue" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["restart=true", "val=false"], "restart=true has no effect with val=false"),
        (["restart=true", "clean_epochs=0"], "restart=true has no effect with clean_epochs=0"),
        (["restart=true", "clean_epochs=2", "epochs=2"], "clean_epochs=2 of 2 epochs, as none"),
        (["restart_ema_decay=0.5"], "restart_ema_decay=0.5 needs restart=true"),
    ],
)
def test_a_restart_without_effect_is_refused(words, sentence, model, squares, tmp_path, capsys):
    assert run(command(model, squares, tmp_path, *words)) == 2
    assert sentence in capsys.readouterr().err
