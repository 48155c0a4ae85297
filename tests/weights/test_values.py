from __future__ import annotations

import pytest
import torch

from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.weights.checkpoint import check_fit
from rtdetr_cli.weights.values import check_values

GOOD = {
    "conv.weight": torch.tensor([[-3e38, 3e38]]),
    "double": torch.tensor([-1e308, 1e308], dtype=torch.float64),
    "half": torch.tensor([65504.0], dtype=torch.float16),
    "bn.running_var": torch.tensor([0.0, 1.0]),
    "bn.num_batches_tracked": torch.tensor(5),
    "mask": torch.tensor([True]),
    "short": torch.tensor([-1], dtype=torch.int16),
    "empty": torch.zeros(0),
}


def test_all_that_is_finite_passes():
    check_values(GOOD, "x.pt")
    check_values({}, "x.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["conv.weight", "double", "half", "bn.running_var"])
def test_what_is_not_finite_is_named(name, value):
    tensors = {key: tensor.clone() for key, tensor in GOOD.items()}
    tensors[name].view(-1)[0] = value
    with pytest.raises(WeightsError) as caught:
        check_values(tensors, "x.pt")
    assert str(caught.value) == (
        "x.pt cannot be used: 1 of its 8 tensors hold values that are not finite (NaN or "
        f"infinite), the first is {name}"
    )


@pytest.mark.parametrize("name", ["bn.running_var", "bn.num_batches_tracked"])
def test_variances_and_counts_are_not_below_zero(name):
    tensors = {**GOOD, name: torch.full_like(GOOD[name], -1)}
    with pytest.raises(WeightsError, match=rf"{name} must not be negative, found -1$"):
        check_values(tensors, "x.pt")


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_weights_are_floating_point_numbers(dtype):
    expected = {"conv.weight": torch.zeros(2, 2)}
    with pytest.raises(WeightsError, match=rf"conv.weight is {dtype} instead of torch.float32"):
        check_fit({"conv.weight": torch.zeros(2, 2, dtype=dtype)}, expected, "x.pt")
