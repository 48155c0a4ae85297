"""The figure of `rtdetr tradeoff`."""

from __future__ import annotations

import pytest

from rtdetr_cli.core.image import read_image
from rtdetr_cli.evaluation.tradeoff_figure import TradeoffPoint, save_tradeoff_figure


@pytest.mark.parametrize("count", [1, 30])
def test_any_number_of_groups_is_drawn(tmp_path, count):
    points = [
        TradeoffPoint("1 layer", f"{n} px", 5.0 + n, 40.0 + n, 38.0, 80.0, n % 2 == 0, n == 0)
        for n in range(count)
    ]
    save_tradeoff_figure(tmp_path / "x.png", points, "a.pt, 87 images")
    image = read_image(tmp_path / "x.png")
    assert image.shape == (900, 1500, 3)
    assert (image != 255).any(axis=2).mean() > 0.005
