"""Boxes: those of one Results (core/results.py), with the attribute names of Ultralytics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from rtdetr_cli.core.arrays import Array, copied, same_kind, to_xywh
from rtdetr_cli.core.errors import UsageError

Index: TypeAlias = "int | slice | list[int] | Array"


class Boxes:
    """The boxes of one image in pixels of the original, highest score first.

    Attributes:
        data: (N, 6) rows x1, y1, x2, y2, score, class index, or (N, 7) with the id of the track
            before the score: a tensor if PyTorch has run the network; if another runtime has, a
            NumPy array that also has `cpu` and `numpy` (core/arrays.py); after `Boxes.numpy` a
            plain array.
        orig_shape: (height, width) of the image in pixels.
    """

    def __init__(self, data: Array, orig_shape: tuple[int, int]) -> None:
        self.data = data[None] if data.ndim == 1 else data
        if self.data.ndim != 2 or self.data.shape[1] not in {6, 7}:
            raise UsageError(
                f"boxes of shape {tuple(data.shape)}: expected (N, 6) rows of "
                "x1, y1, x2, y2, score, class, or (N, 7) with an id before the score"
            )
        self.orig_shape = orig_shape

    @property
    def is_track(self) -> bool:
        """Whether the boxes have ids."""
        return self.data.shape[1] == 7

    @property
    def id(self) -> Array | None:
        """(N,) ids of the tracks, from 1, as floats like the rest of `data`; None without."""
        return self.data[:, 4] if self.is_track else None

    @property
    def xyxy(self) -> Array:
        """(N, 4) corners in pixels."""
        return self.data[:, :4]

    @property
    def conf(self) -> Array:
        """(N,) scores in 0..1."""
        return self.data[:, -2]

    @property
    def cls(self) -> Array:
        """(N,) class indices, as floats like the rest of `data`."""
        return self.data[:, -1]

    @property
    def xywh(self) -> Array:
        """(N, 4) centre and size in pixels."""
        return to_xywh(self.xyxy)

    @property
    def xyxyn(self) -> Array:
        """(N, 4) corners as fractions of the image's width and height."""
        return self.xyxy / same_kind(self.data, self.orig_shape[::-1] * 2)

    @property
    def xywhn(self) -> Array:
        """(N, 4) centre and size as fractions of the image's width and height."""
        return to_xywh(self.xyxyn)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, 6), or (N, 7) with ids."""
        return tuple(self.data.shape)

    def clipped(self) -> Boxes:
        """A copy clipped to the image; predicted boxes may extend beyond it."""
        height, width = self.orig_shape
        data: Any = copied(self.data)
        data[:, [0, 2]] = data[:, [0, 2]].clip(0, width)
        data[:, [1, 3]] = data[:, [1, 3]].clip(0, height)
        return Boxes(data, self.orig_shape)

    def cpu(self) -> Boxes:
        """A copy in main memory."""
        return self if isinstance(self.data, np.ndarray) else self.to("cpu")

    def numpy(self) -> Boxes:
        """A copy whose `data` is a NumPy array."""
        data = self.data
        array = np.asarray(data if isinstance(data, np.ndarray) else data.detach().cpu())
        return Boxes(array, self.orig_shape)

    def cuda(self) -> Boxes:
        """A copy on the GPU."""
        return self.to("cuda")

    def to(self, *args: Any, **kwargs: Any) -> Boxes:  # noqa: ANN401  (those of Tensor.to)
        """A copy on another device, of another type or both; arguments of `Tensor.to`."""
        import torch

        return Boxes(torch.as_tensor(self.data).to(*args, **kwargs), self.orig_shape)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Index) -> Boxes:
        return Boxes(self.data[index], self.orig_shape)

    def __iter__(self) -> Iterator[Boxes]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Boxes(shape={self.shape}, orig_shape={self.orig_shape}, data={self.data})"
