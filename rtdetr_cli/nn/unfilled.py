"""Build a network without random initial values, for weights that replace all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

_FILLS = (Tensor.uniform_, Tensor.normal_, Tensor.fill_, Tensor.zero_)


class Unfilled(TorchFunctionMode):
    """Within it torch.nn.init and filling in place do nothing; memory stays as it was allocated.

    RT-DETR-L is built in 0.04 s of processor time instead of 0.21 s, and its 131 MB are never
    touched. The meta device, which needs no memory either, imports 900 modules to fill a tensor:
    1.3 s.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  torch's own signature
        """Return the tensor as it is, or call any other function."""
        kwargs = kwargs or {}
        if func in _FILLS or getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
