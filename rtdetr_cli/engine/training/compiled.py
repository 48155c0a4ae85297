"""`compile=true`: backbone and hybrid encoder as graphs that torch.compile makes.

The decoder stays as it is: how many denoising queries it gets follows from the fullest image of
each batch, so that its graph would be made anew again and again. train.py takes its steps within
`explain_failed_compile`.
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
    """Have the parts compiled in place when they are first called; names of tensors stay.

    One graph serves all sizes of multi-scale, and a graph each the two sizes of batch (the last one
    may be smaller) otherwise: which graph a step uses then follows from its batch alone, so that a
    resumed run computes the same.

    Args:
        network: on its device, with the norms that it keeps.
        is_multi_scale: whether batches differ in size.
    """
    say("compile: the first step makes graphs, which takes minutes")
    for part in (network.backbone, network.encoder):
        part.compile(backend=BACKEND, dynamic=is_multi_scale)


@contextmanager
def explain_failed_compile() -> Iterator[None]:
    """Say what is missing where a graph cannot be made.

    Raises:
        BackendError: it cannot.
    """
    try:
        yield
    except TorchDynamoException as error:
        reason = " ".join(str(error).split("\n\n", maxsplit=1)[0].split())
        raise BackendError(
            f"compile=true made no graph: {reason[:200]}; it needs a C++ compiler (g++ or clang, "
            "which CXX may name; on GPUs triton as well), or leave compile out"
        ) from error
