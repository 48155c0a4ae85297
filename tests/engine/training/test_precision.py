"""Autocast types and loss scaling."""

from __future__ import annotations

import copy

import pytest
import torch

from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.engine.training import precision as precision_module
from rtdetr_cli.engine.training.optim import train_mode
from rtdetr_cli.engine.training.precision import choose_precision
from rtdetr_cli.engine.training.prepare import prepare
from rtdetr_cli.engine.training.step import NotFiniteError, train_step
from rtdetr_cli.loss.criterion import Criterion

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("amp", "dtype"), [("off", None), ("bf16", torch.bfloat16)], ids=["off", "bf16"]
)
def test_an_explicit_type_is_used_on_any_cpu(amp, dtype):
    assert choose_precision(amp, CPU).dtype is dtype


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [("fpu avx2 avx512f", None), ("avx512_bf16 sse", torch.bfloat16), ("amx_bf16", torch.bfloat16)],
)
def test_auto_is_bf16_on_cpus_with_instructions_for_it(flags, dtype, set_cpu):
    set_cpu(*flags.split())
    chosen = choose_precision("auto", CPU)
    assert chosen.dtype is dtype
    assert chosen.describe() == ("bf16" if dtype else "float32")
    assert "slow" not in chosen.describe()
    assert ("slow" in choose_precision("bf16", CPU).describe()) == (dtype is None)


@pytest.mark.parametrize(
    ("has_bf16", "dtype"), [(True, torch.bfloat16), (False, torch.float16)], ids=["new", "old"]
)
def test_auto_prefers_bf16_to_fp16_on_cuda(has_bf16, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda _: has_bf16)
    assert precision_module._fast_dtype("cuda") is dtype
    if not has_bf16:
        with pytest.raises(BackendError, match="amp=bf16 is not supported on this GPU"):
            choose_precision("bf16", GPU)


@pytest.mark.parametrize(
    ("amp", "device", "sentence"),
    [
        ("fp16", "cpu", "amp=fp16 needs a CUDA device; on cpu give amp=bf16 or amp=off"),
        ("bf16", "mps", "amp=bf16 is not supported on mps; give amp=off"),
    ],
)
def test_unsupported_types_are_rejected(amp, device, sentence):
    with pytest.raises(BackendError, match=sentence):
        choose_precision(amp, torch.device(device))


@pytest.mark.parametrize("value", [False, "off"])
def test_a_bare_off_in_yaml_means_off(value):
    assert settings_from_pairs(TrainSettings, {"data": "x", "amp": value}).amp == "off"


def toy_run(tiny_yaml, squares, tmp_path, amp):
    toy = TrainSettings(
        model=str(tiny_yaml),
        data=str(squares / "data.yaml"),
        project=str(tmp_path / "runs"),
        imgsz=64,
        batch=4,
        workers=0,
        device="cpu",
        amp=amp,
    )
    run = prepare(toy)
    train_mode(run.network, run.recipe)
    return run, next(iter(run.data.train_batches.batches()))


def test_a_step_in_bf16_is_close_to_one_in_float32(tiny_yaml, squares, tmp_path):
    losses = []
    for amp in ("off", "bf16"):
        run, batch = toy_run(tiny_yaml, squares, tmp_path, amp)
        losses.append(train_step(run, Criterion(), batch)["loss"])
    assert losses[0].dtype == losses[1].dtype == torch.float32
    assert losses[0] != losses[1]
    torch.testing.assert_close(losses[1], losses[0], rtol=0.02, atol=0)


def test_a_gradient_that_overflows_by_its_scale_is_skipped_and_the_scale_halved(
    tiny_yaml, squares, tmp_path
):
    run, batch = toy_run(tiny_yaml, squares, tmp_path, "off")
    run.precision.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    before = copy.deepcopy(list(run.network.parameters()))
    assert train_step(run, Criterion(), batch) is None
    assert run.progress.skipped == 0  # it does not count towards the three that end a run
    assert all(map(torch.equal, before, run.network.parameters()))
    assert run.precision.scaler.get_scale() == 2.0**126
    run.precision.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    train_step(run, Criterion(), batch)
    assert not all(map(torch.equal, before, run.network.parameters()))


def test_gradients_that_stay_non_finite_end_the_training(tiny_yaml, squares, tmp_path):
    run, batch = toy_run(tiny_yaml, squares, tmp_path, "off")
    run.precision.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    next(run.network.parameters()).data[:] = float("nan")
    assert [train_step(run, Criterion(), batch) for _ in range(2)] == [None, None]
    with pytest.raises(NotFiniteError) as caught:
        train_step(run, Criterion(), batch)
    assert caught.value.losses["loss"].isnan()


def test_a_scaled_step_is_the_same_step(tiny_yaml, squares, tmp_path):
    """Powers of two scale exactly, and gradients are clipped after unscaling."""
    weights = []
    for scale in (None, 2.0**10):
        run, batch = toy_run(tiny_yaml, squares, tmp_path, "off")
        if scale:
            run.precision.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        train_step(run, Criterion(), batch)
        weights.append(list(run.network.parameters()))
    for plain, scaled in zip(*weights, strict=True):
        torch.testing.assert_close(scaled, plain, rtol=0, atol=1e-7)
