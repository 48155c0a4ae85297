"""One NVIDIA GPU, a stream of our own on it, and CUDA graphs: what tensorrt.py needs of CUDA."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from rtdetr_cli.backends.torch import choose_device
from rtdetr_cli.core.console import warn
from rtdetr_cli.core.errors import BackendError


class Gpu:
    """A GPU and the stream that engines run on.

    On the default stream TensorRT would wait for the whole GPU at each call.

    Attributes:
        device: for tensors.
        name: as NVIDIA calls it.
        capability: compute capability, for example `9.0`.
    """

    def __init__(self, device: str | None = None) -> None:
        """Take a GPU.

        Args:
            device: `cuda`, `cuda:1`, `0`...; None takes the first.

        Raises:
            BackendError: there is none, or the device is no GPU of NVIDIA.
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
        """The address of the stream, as other libraries take it."""
        return self._stream.cuda_stream

    @contextmanager
    def work(self) -> Iterator[None]:
        """Queue on the own stream, after what the caller has queued and before what follows."""
        caller = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(caller)
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            yield
        caller.wait_stream(self._stream)

    def capture(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """Record what a function queues, to launch all of it at once.

        Args:
            enqueue: has been called once before, since a first call allocates.

        Returns:
            What replays it; the function itself, with a warning, where CUDA cannot record it.
        """
        graph = torch.cuda.CUDAGraph()
        try:
            # Threads that load images may go on using CUDA meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                enqueue()
        except (RuntimeError, BackendError) as error:
            reason = str(error).partition("\n")[0]
            warn(f"without a CUDA graph each call takes longer; it cannot be recorded: {reason}")
            return enqueue
        return graph.replay
