"""compile=true trains as without it, keeps names and resumes; what is missing is said.

`aot_eager` makes the same graphs as `inductor`, forward and backward, and runs them without a C++
compiler, whose hundred kernels take minutes.
"""

from __future__ import annotations

import pytest
import torch
from torch._inductor import config as inductor

from rtdetr_cli.cli.main import run
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.engine import train as loop
from rtdetr_cli.engine.training import compiled
from rtdetr_cli.weights.checkpoint import load_checkpoint
from tests.engine.test_train import command

from .test_resume import equal, raise_at

# Adam's first steps are as long for a rounding error as for a gradient, so the rate is low.
ONE_SIZE = ("multi_scale=false", "batch=4", "amp=off", "lr=1e-5")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch warns of its own tracing
@pytest.mark.parametrize(("backend", "rounding"), [("aot_eager", 1e-6), ("inductor", 1e-3)])
def test_a_compiled_run_has_the_losses_of_one_that_is_not_and_resumes(
    backend, rounding, tiny_yaml, squares, tmp_path, monkeypatch, capsys
):
    losses, denoising = [], []
    real = loop.train_step

    def watched(run, criterion, *batches):
        handle = run.network.register_forward_hook(
            lambda _module, _inputs, output: denoising.append(len(output.denoising_outputs))
        )
        found = real(run, criterion, *batches)
        handle.remove()
        losses.append(found["loss"].item())
        return found

    def train(name: str, *more: str) -> int:
        words = command(tiny_yaml, squares, tmp_path / name, *ONE_SIZE, "epochs=2", *more)
        return run(words)

    monkeypatch.setattr(compiled, "BACKEND", backend)
    monkeypatch.setattr(loop, "train_step", watched)
    torch.compiler.reset()
    assert train("plain") == 0
    assert train("whole", "compile") == 0
    assert "the first step compiles, which takes minutes" in capsys.readouterr().err
    assert losses[4:] == pytest.approx(
        losses[:4], rel=rounding
    )  # two batches in each of two epochs
    assert denoising == [3] * 8  # every decoder layer
    raise_at({3}, KeyboardInterrupt, monkeypatch)
    assert train("broken", "compile") == 130
    assert run(["train", "resume=true", f"project={tmp_path / 'broken'}"]) == 0
    plain, whole, broken = (
        load_checkpoint(tmp_path / name / "train/weights/last.pt")
        for name in ("plain", "whole", "broken")
    )
    assert whole.weights.keys() == plain.weights.keys()
    assert whole.training["network"].keys() == plain.training["network"].keys()
    assert equal(whole.weights, broken.weights)
    assert equal(whole.training["network"], broken.training["network"])


def test_a_missing_compiler_is_named_in_one_sentence():
    torch.compiler.reset()
    with (
        inductor.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(BackendError, match="it needs a C\\+\\+ compiler") as caught,
        compiled.explain_failed_compile(),
    ):
        torch.compile(lambda x: x.sin() + 1.2345)(torch.ones(3))
    assert "no-such-compiler" in str(caught.value)
    assert "leave compile out" in str(caught.value)
    assert "\n" not in str(caught.value)
