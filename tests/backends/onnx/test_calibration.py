"""Histograms of activations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rtdetr_cli.backends.onnx.calibration import BINS, Histogram


def test_percentiles_do_not_depend_on_the_order_of_images():
    values = torch.randn(10, 5000, generator=torch.Generator().manual_seed(0))
    values *= torch.arange(1, 11)[:, None]  # each image goes beyond the one before
    together, apart = Histogram(), Histogram()
    together.add(values)
    for row in values:
        apart.add(row)
    assert together.counts.sum() == apart.counts.sum() == values.numel()
    for percent in (50, 99, 99.9, 100):
        expected = float(np.percentile(values.abs().numpy(), percent))
        for one in (together, apart):
            assert one.percentile(percent) == pytest.approx(expected, abs=4 * one.limit / BINS)
    assert together.percentile(100) == float(values.abs().max())


def test_the_percentile_of_zeros_is_zero():
    empty = Histogram()
    empty.add(torch.zeros(4))
    assert empty.percentile(99.9) == 0
