"""`compile=true`: torch.compile for the backbone and the hybrid encoder.

The decoder is not compiled: its number of denoising queries depends on the image with the most
boxes in each batch, so that it would be recompiled again and again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch._dynamo.exc import TorchDynamoException

from rtdetr_cli.core.console import say
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

BACKEND = "inductor"


def compile_network(network: RTDETRNetwork, is_multi_scale: bool) -> None:
    """Compile both parts in place, at their first call; state dict keys do not change.

    With multi-scale one dynamic graph covers all sizes. Without it each of the two batch sizes (the
    last batch may be smaller) gets its own graph. Either way the graph depends on the batch alone,
    so that a resumed run computes the same.

    Args:
        network: on its device, after any conversion to SyncBatchNorm.
        is_multi_scale: whether image sizes differ between batches.
    """
    say("compile: the first step compiles, which takes minutes")
    for part in (network.backbone, network.encoder):
        part.compile(backend=BACKEND, dynamic=is_multi_scale)


@contextmanager
def explain_failed_compile() -> Iterator[None]:
    """Report why torch.compile failed.

    Raises:
        BackendError: compilation failed.
    """
    try:
        yield
    except TorchDynamoException as error:
        reason = " ".join(str(error).split("\n\n", maxsplit=1)[0].split())
        raise BackendError(
            f"compile=true failed: {reason[:200]}; it needs a C++ compiler (g++ or clang, "
            "which CXX may name; on GPUs triton as well), or leave compile out"
        ) from error
