"""The tiny data set and checkpoint of tests/engine, and the settings of a small grid."""

from __future__ import annotations

import pytest

from rtdetr_cli.config.settings.tradeoff import TradeoffSettings


@pytest.fixture
def small(checkpoint, squares) -> TradeoffSettings:
    """Two sizes, all depths, two numbers of queries."""
    return TradeoffSettings(
        model=str(checkpoint),
        data=str(squares / "data.yaml"),
        imgsz=(64, 96),
        num_queries=(5, 20),
        half=False,
        device="cpu",
        batch=3,
        workers=0,
        resamples=100,
    )
