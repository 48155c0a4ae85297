"""The summary that `RTDETR.info` returns: Ultralytics' tuple, with the attributes of ModelInfo."""

from __future__ import annotations

from typing import Any

from torch import nn

from rtdetr_cli.config.settings.modes import InfoSettings
from rtdetr_cli.core.console import table
from rtdetr_cli.engine.info import ModelInfo, describe_model, info
from rtdetr_cli.evaluation.speed import count_flops

SIZE_HW = (640, 640)
"""Input of the GFLOPs in the tuple; the attribute `gflops` has the model's own or `imgsz`."""


class Summary(tuple[int | None, int | None, int | None, float | None]):
    """(layers, parameters, gradients, GFLOPs at 640); None where an exported file has no network.

    A layer is a module, a gradient a parameter that is not frozen.

    Attributes:
        found: the ModelInfo, whose attributes this object has as well.
    """

    found: ModelInfo

    def __new__(cls, numbers: tuple[Any, ...], found: ModelInfo) -> Summary:
        """A tuple with an attribute."""
        self = super().__new__(cls, numbers)
        self.found = found
        return self

    def __getnewargs__(self) -> tuple[tuple[Any, ...], ModelInfo]:
        return tuple(self), self.found

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  (whatever ModelInfo has)
        return getattr(self.found, name)


def summarize(
    settings: InfoSettings, network: nn.Module | None, detailed: bool, verbose: bool
) -> Summary:
    """Describe a model.

    Args:
        settings: every key of `rtdetr info`.
        network: the network; None in exported files.
        detailed: print a line per parameter as well.
        verbose: print the description.
    """
    found = info(settings) if verbose else describe_model(settings)
    if network is None:
        return Summary((None, found.parameters, None, found.gflops), found)
    parameters = dict(network.named_parameters())
    if detailed and verbose:
        rows = (
            (name, str(tuple(one.shape)), f"{one.numel():,}", "yes" if one.requires_grad else "no")
            for name, one in parameters.items()
        )
        table("", ("parameter", "shape", "numbers", "gradient"), rows)
    layers = sum(1 for _ in network.modules())
    gradients = sum(one.numel() for one in parameters.values() if one.requires_grad)
    gflops = found.gflops if found.size_hw == SIZE_HW else count_flops(network, SIZE_HW) / 1e9
    return Summary((layers, found.parameters, gradients, gflops), found)
