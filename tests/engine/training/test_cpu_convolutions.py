"""The replaced convolutions have the gradients of PyTorch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from rtdetr_cli.engine.training import cpu_convolutions
from rtdetr_cli.engine.training.cpu_convolutions import speed_up_convolutions


@pytest.fixture(autouse=True)
def avx2(monkeypatch):
    monkeypatch.setattr(cpu_convolutions, "_SMALLEST_IMAGE", 0)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    convolutions = [
        nn.Conv2d(32, 48, 3, 1, 1, bias=False),
        nn.Conv2d(48, 32, 1, bias=False),
        nn.Conv2d(32, 64, 3, 2, 1, bias=False),
        nn.Conv2d(64, 64, 3, 1, 1, groups=64, bias=False),
        nn.Conv2d(64, 4, 5, 1, 2, bias=True),
    ]
    return nn.Sequential(*convolutions).double().to(memory_format=torch.channels_last)


def gradients(model: nn.Module) -> list[torch.Tensor]:
    torch.manual_seed(1)
    images = torch.rand(2, 32, 20, 24, dtype=torch.float64).contiguous(
        memory_format=torch.channels_last
    )
    images.requires_grad_()
    model(images).square().sum().backward()
    return [images.grad, *(parameter.grad for parameter in model.parameters())]


def test_gradients_equal_pytorchs():
    plain, fast = network(), network()
    speed_up_convolutions(fast)
    kinds = [type(module) is cpu_convolutions._Convolution for module in fast]
    assert kinds == [True, False, True, False, False]
    for one, other in zip(gradients(fast), gradients(plain), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert fast.state_dict().keys() == plain.state_dict().keys()


def test_frozen_kernels_and_inference_stay_plain():
    fast = network()
    speed_up_convolutions(fast)
    fast[0].weight.requires_grad_(False)
    assert gradients(fast)[1] is None
    with torch.no_grad():
        images = torch.rand(1, 32, 16, 16, dtype=torch.float64)
        assert torch.equal(fast(images), network()(images))
    assert type(copy.deepcopy(fast)[0]) is cpu_convolutions._Convolution


def test_other_cpus_keep_pytorchs_convolutions(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    model = network()
    speed_up_convolutions(model)
    assert all(type(module) is nn.Conv2d for module in model)


def test_small_images_use_pytorchs_own_gradient(monkeypatch):
    plain, fast = network(), network()
    speed_up_convolutions(fast)
    monkeypatch.setattr(cpu_convolutions, "_SMALLEST_IMAGE", 10**9)
    assert all(map(torch.equal, gradients(fast), gradients(plain)))
