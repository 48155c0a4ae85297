"""Pictures into a graph by its contract and detections out of it, whatever runtime computes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from rtdetr_cli.backends.contract import Contract
from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.core.structures import Detections

Feed = dict[str, npt.NDArray[Any]]
"""Inputs of a graph by name."""


def detect_in_parts(
    contract: Contract,
    images: Tensor,
    sizes_hw: list[tuple[int, int]],
    max_det: int,
    run: Callable[[Feed], list[Tensor]],
) -> list[Detections]:
    """Find objects with a graph; where its batch is fixed, part by part.

    Args:
        contract: of the graph.
        images: (B, 3, H, W) float RGB in 0..1.
        sizes_hw: (height, width) in pixels of each original picture.
        max_det: most detections per picture.
        run: inputs by name to outputs in the order of the contract.
    """
    pixels = contract.to_input(images.detach().float().cpu()).numpy()
    step = contract.batch or max(len(pixels), 1)
    found: list[Detections] = []
    for start in range(0, len(pixels), step):
        sizes = sizes_hw[start : start + step]
        answers = run(_feed(contract, pixels[start : start + step], sizes))
        found += contract.decode(answers, sizes, max_det)
    return found


def _feed(contract: Contract, pixels: npt.NDArray[Any], sizes_hw: list[tuple[int, int]]) -> Feed:
    """Inputs by name; pictures are repeated up to the size of a fixed batch."""
    filled = np.minimum(np.arange(contract.batch or len(pixels)), len(pixels) - 1)
    feed: Feed = {contract.image: pixels[filled] if contract.batch else pixels}
    if contract.sizes:
        sizes_wh = [(width, height) for height, width in sizes_hw]
        feed[contract.sizes] = np.array(sizes_wh, np.int64)[filled]
    return feed


def check_labels(found: list[Detections], names: Mapping[int, str], path: Path, whose: str) -> None:
    """Refuse an answer of a class that has no name.

    Raises:
        WeightsError: there is one; the sentence says whose the names are.
    """
    largest = max((int(one.labels.max()) for one in found if len(one)), default=0)
    if largest > max(names):
        raise WeightsError(
            f"{path.name} answers with class {largest}, which has no name: "
            f"{whose} end at {max(names)}"
        )
