"""The weighting function, and boxes from and to distances of their edges."""

from __future__ import annotations

import pytest
import torch

from rtdetr_cli.core.distribution import bin_values, boxes_from_distances, distances_from_boxes


@pytest.mark.parametrize(
    ("scale", "expected"),
    [  # D-FINE's own values of bins 0, 1, 2, 16, 17, 18, 31, 32, as run on its code
        (4.0, [-4, -2, -1.788, 0, 0.076, 0.158, 2, 4]),
        (8.0, [-8, -4, -3.491, 0, 0.113, 0.239, 4, 8]),
    ],
)
def test_bins_are_fine_around_zero_and_double_at_the_ends(
    scale: float, expected: list[float]
) -> None:
    values = bin_values(32, scale, torch.zeros(1, dtype=torch.float64))
    assert values.shape == (33,)
    some = values[[0, 1, 2, 16, 17, 18, 31, 32]]
    torch.testing.assert_close(some, torch.tensor(expected).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(values, -values.flip(0))


def test_a_distance_of_zero_is_the_reference_box() -> None:
    reference = torch.tensor([[0.5, 0.4, 0.2, 0.1]], dtype=torch.float64)
    boxes = boxes_from_distances(reference, torch.zeros(1, 4, dtype=torch.float64), 4.0)
    torch.testing.assert_close(boxes, reference)


def test_a_distance_counts_in_quarters_of_the_size_and_outwards() -> None:
    # left edge 0.4 moves out by 1 / 4 of the width 0.2, the others stay: 0.35..0.6
    boxes = boxes_from_distances(
        torch.tensor([0.5, 0.5, 0.2, 0.2]), torch.tensor([1.0, 0, 0, 0]), 4.0
    )
    torch.testing.assert_close(boxes, torch.tensor([0.475, 0.5, 0.25, 0.2]))


def test_distances_are_the_inverse_of_boxes() -> None:
    generator = torch.Generator().manual_seed(0)
    reference, boxes = torch.rand(2, 50, 4, generator=generator, dtype=torch.float64) + 0.01
    for scale in (4.0, 8.0):
        distances = distances_from_boxes(reference, boxes, scale)
        torch.testing.assert_close(boxes_from_distances(reference, distances, scale), boxes)
