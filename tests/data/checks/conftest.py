"""Scenes as different from each other as photographs, drawn from a seed."""

from __future__ import annotations

import numpy as np
import pytest

from rtdetr_cli.core.opencv import cv2


@pytest.fixture
def scene():
    """Draws (120, 160, 3) uint8: blobs of all sizes, the larger the stronger."""

    def draw(seed):
        rng = np.random.default_rng(seed)
        layers = [
            cv2.resize(
                rng.normal(size=(3 * n, 4 * n, 3)), (160, 120), interpolation=cv2.INTER_CUBIC
            )
            for n in (1, 2, 4, 8, 16)
        ]
        pixels = sum(layer / (number + 1) for number, layer in enumerate(layers))
        return (127 + 50 * pixels / pixels.std()).clip(0, 255).astype(np.uint8)

    return draw
