"""An NVIDIA GPU with a stream of its own, and CUDA graphs, for detector.py and build.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from rtdetr_cli.backends.torch import choose_device
from rtdetr_cli.core.console import warn
from rtdetr_cli.core.errors import BackendError


class Gpu:
    """A GPU and the stream that engines run on.

    On the default stream TensorRT would synchronise the whole GPU at each call.

    Attributes:
        device: for tensors.
        name: as NVIDIA calls it.
        capability: compute capability, for example `9.0`.
    """

    def __init__(self, device: str | None = None) -> None:
        """Select a GPU.

        Args:
            device: `cuda`, `cuda:1`, `0`...; None takes the first.

        Raises:
            BackendError: there is none, or the device is not a CUDA GPU.
        """
        self.device = choose_device(device)
        if self.device.type != "cuda":
            seen = "PyTorch sees none here" if device is None else f"found device={device}"
            raise BackendError(f"TensorRT needs a CUDA GPU; {seen}")
        self.name = torch.cuda.get_device_name(self.device)
        self.capability = "{}.{}".format(*torch.cuda.get_device_capability(self.device))
        self._stream = torch.cuda.Stream(self.device)

    @property
    def stream_handle(self) -> int:
        """The cudaStream_t, for other libraries."""
        return self._stream.cuda_stream

    @contextmanager
    def work(self) -> Iterator[None]:
        """Queue work on this stream, ordered with the work on the stream of the caller."""
        caller = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(caller)
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            yield
        caller.wait_stream(self._stream)

    def capture(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """Record the work that a function queues as a CUDA graph.

        Args:
            enqueue: called once before, since a first call may allocate.

        Returns:
            A function that replays it; `enqueue`, with a warning, if CUDA cannot record it.
        """
        graph = torch.cuda.CUDAGraph()
        try:
            # Threads that load images may use CUDA meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                enqueue()
        except (RuntimeError, BackendError) as error:
            reason = str(error).partition("\n")[0]
            warn(f"cannot record a CUDA graph, so each call takes longer: {reason}")
            return enqueue
        return graph.replay
