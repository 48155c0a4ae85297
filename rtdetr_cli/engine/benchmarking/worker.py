"""A worker process of `rtdetr benchmark` and `tradeoff`: opens one file and times it on request.

`python -m rtdetr_cli.engine.benchmarking.worker` reads one line of JSON (model, device, half,
timeout, size_hw) and writes `{"ready": ...}`; for each further line `{"batch": B, "calls": N}` it
writes N times and its peak memory. A line may have another `size_hw`, and for weights
`"speed": [decoder_layers, num_queries]`. process.py sends the requests.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import IO, Any

import torch

from rtdetr_cli.backends.load import Detector, load_detector
from rtdetr_cli.backends.torch import TorchDetector
from rtdetr_cli.core.errors import RTDETRError
from rtdetr_cli.core.memory import peak_memory


def time_calls(detector: Detector, images: torch.Tensor, calls: int) -> list[float]:
    """Milliseconds of each call, from images to detections on the CPU."""
    sizes_hw = [(480, 640)] * len(images)
    times_ms = []
    for _ in range(calls):
        start = time.perf_counter()
        detector.detect(images, sizes_hw)
        times_ms.append(1000 * (time.perf_counter() - start))
    return times_ms


def serve(requests: IO[str], replies: IO[str]) -> None:
    """Open the file named in the first line, then serve requests until the input ends."""
    first = json.loads(requests.readline())
    try:
        detector = load_detector(
            first["model"], first["device"], half=first["half"], timeout=first["timeout"]
        )
    except RTDETRError as error:
        _reply(replies, {"error": str(error)})
        return
    _reply(replies, {"ready": detector.description})
    generator = torch.Generator().manual_seed(0)
    for line in requests:
        request = json.loads(line)
        size_hw = request.get("size_hw", first["size_hw"])
        images = torch.rand(request["batch"], 3, *size_hw, generator=generator)
        if "speed" in request and isinstance(detector, TorchDetector):
            detector.set_speed(*request["speed"])
        try:
            times_ms = time_calls(detector, images, request["calls"])
        except RTDETRError as error:
            _reply(replies, {"error": str(error)})
            continue
        _reply(replies, {"times_ms": times_ms, "peak_bytes": peak_memory()})


def _reply(replies: IO[str], values: dict[str, Any]) -> None:
    replies.write(json.dumps(values) + "\n")
    replies.flush()


def main() -> None:
    """Reserve stdout for replies; output of libraries goes to stderr."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, replies)


if __name__ == "__main__":
    main()
