"""RMSNorm, SwiGLU and the activation of an MLP, against formulas written out here."""

from __future__ import annotations

import torch

from rtdetr_cli.nn.layers import ACTIVATIONS, MLP, ExactMLP, RMSNorm, SwiGLU


def test_the_root_mean_square_is_one_times_the_scale() -> None:
    norm = RMSNorm(2)
    norm.scale.data.copy_(torch.tensor([1.0, 10.0]))
    # of 3 and 4: sqrt(25 / 2)
    torch.testing.assert_close(norm(torch.tensor([3.0, 4])), torch.tensor([0.848528, 11.31371]))


def test_the_norm_is_float32_inside_and_keeps_the_type() -> None:
    """300 squared is too large for float16, whose largest number is 65504."""
    out = RMSNorm(2)(torch.tensor([300.0, 300.0], dtype=torch.float16))
    assert out.dtype == torch.float16
    assert out.tolist() == [1, 1]
    assert RMSNorm(2).double()(torch.rand(2).double()).dtype == torch.float64


def test_swiglu_gates_the_second_half_by_the_silu_of_the_first() -> None:
    torch.manual_seed(0)
    ffn, x = SwiGLU(3, 4), torch.randn(2, 3)
    first, second = x @ ffn.w12.weight[:4].T, x @ ffn.w12.weight[4:].T
    expected = (first * first.sigmoid() * second) @ ffn.w3.weight.T
    torch.testing.assert_close(ffn(x), expected)


def test_an_mlp_has_its_activation_between_the_layers_only() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 3)
    for kind in (MLP, ExactMLP):
        mlp = kind((3, 4, 2), ACTIVATIONS["silu"])
        hidden = mlp.layers[0](x)
        torch.testing.assert_close(mlp(x), mlp.layers[1](hidden * hidden.sigmoid()))
