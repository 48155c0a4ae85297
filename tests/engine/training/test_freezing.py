"""What is frozen keeps its weights and its norms their statistics; the rest moves."""

from __future__ import annotations

import pytest
import torch

from rtdetr_cli.cli.main import run
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.engine.training.optim import named_parts
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import load_checkpoint
from tests.engine.test_train import command


@pytest.mark.parametrize(
    ("freeze", "still"),
    [("backbone", ("backbone.",)), ("1", ("backbone.stem.", "backbone.stages.0."))],
)
@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("muon", marks=pytest.mark.slow)])
def test_frozen_parts_stay_bit_for_bit(freeze, still, optimizer, tiny_yaml, squares, tmp_path):
    states = []
    for epochs in (1, 2):
        project = tmp_path / str(epochs)
        words = command(
            tiny_yaml, squares, project, f"epochs={epochs}", f"freeze={freeze}",
            f"optimizer={optimizer}", "clean_epochs=0", "warmup_steps=0",
        )  # fmt: skip
        assert run(words) == 0
        last = load_checkpoint(project / "train" / "weights" / "last.pt")
        states.append(last.training["network"])
    for name, value in states[0].items():
        stays = name.startswith(still)
        moved = not torch.equal(value, states[1][name])
        assert not (stays and moved), name
    moving = [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]
    assert any(name.startswith("decoder.") for name in moving)
    assert any(name.startswith("backbone.stages.1") for name in moving) == (freeze == "1")


@pytest.mark.parametrize(
    ("freeze", "sentence"),
    [("9", "the backbone has 4 stages"), ("backbon", "did you mean backbone")],
)
def test_what_does_not_exist_is_refused(freeze, sentence, tiny_config):
    with pytest.raises(UsageError, match=sentence):
        named_parts(RTDETRNetwork(tiny_config, num_classes=2), freeze)
