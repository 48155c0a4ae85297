"""Values that are NumPy arrays or tensors, as exported files run without PyTorch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Array: TypeAlias = "Tensor | NDArray[Any]"


class HostArray(np.ndarray[Any, Any]):
    """An array with the methods that code for tensors calls to get at the numbers.

    So `boxes.xyxy.cpu().numpy()`, `int(box.cls)` and `box.conf[0].item()` work with detections of
    exported files as they do with those of weights. Make one by `array.view(HostArray)`.
    """

    def cpu(self) -> HostArray:
        """Itself: it is in main memory."""
        return self

    detach = cpu

    def numpy(self) -> NDArray[Any]:
        """The plain array, without a copy."""
        return self.view(np.ndarray)

    def int(self) -> HostArray:
        """A copy as int32, as of a tensor."""
        return self.astype(np.int32).view(HostArray)

    def long(self) -> HostArray:
        """A copy as int64."""
        return self.astype(np.int64).view(HostArray)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401  (as of any array)
        return np.asanyarray(super().__getitem__(index)).view(HostArray)

    def __int__(self) -> Any:  # noqa: ANN401  (int; the method above hides the name)
        return self.item().__int__()

    def __float__(self) -> float:
        return float(self.item())


def is_tensor(value: object) -> TypeGuard[Tensor]:
    """Whether a value is a tensor; torch is not imported, as a tensor exists only if it is."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_xywh(corners: Array) -> Array:
    """(N, 4) corners to centre and size."""
    low, high = corners[:, :2], corners[:, 2:]
    centre_and_size: Any = ((low + high) / 2, high - low)
    if isinstance(corners, np.ndarray):
        return np.concatenate(centre_and_size, axis=1).view(type(corners))
    import torch

    return torch.cat(centre_and_size, dim=1)


def copied(values: Array) -> Array:
    """A copy of the same kind."""
    return values.copy() if isinstance(values, np.ndarray) else values.clone()


def same_kind(values: Array, numbers: tuple[int, ...]) -> Array:
    """Numbers as an array or tensor of the type and on the device of `values`."""
    if isinstance(values, np.ndarray):
        return np.array(numbers, values.dtype)
    return values.new_tensor(numbers)
