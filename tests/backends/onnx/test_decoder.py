"""Constants and products of the deployed decoder; test_network.py compares whole networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rtdetr_cli.backends.onnx.decoder import BOX_LOGIT_LIMIT, multiply_out
from rtdetr_cli.nn.decoder import inverse_sigmoid


def test_the_limit_is_the_inverse_sigmoid_of_the_border():
    border = inverse_sigmoid(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert border.tolist() == pytest.approx([-BOX_LOGIT_LIMIT, BOX_LOGIT_LIMIT], abs=1e-12)


@pytest.mark.parametrize("first", [nn.Sequential(nn.Conv2d(3, 4, 1), nn.Identity()), nn.Identity()])
def test_one_convolution_equals_two_steps(first):
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 5, 6)
    projected = first(maps)
    second = nn.Linear(projected.shape[1], 2)
    expected = second(projected.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(multiply_out(first, second)(maps), expected)
