"""The peer of bench_cpu_ladder.py; runs in an environment with Ultralytics, as a black box."""

from __future__ import annotations

import sys
import time

from interleave import Times, reserve_stdout, serve


def main(model: str, height: str, width: str) -> None:
    """Run the network on one prepared image per call: fused, in eval mode."""
    replies = reserve_stdout()
    import torch
    from ultralytics import RTDETR, settings

    settings.update({"sync": False})
    network = RTDETR(model).model.fuse(verbose=False).float().eval()
    images = torch.rand(1, 3, int(height), int(width))

    @torch.inference_mode()
    def call() -> Times:
        start = time.perf_counter()
        network(images)
        return {"image": 1000 * (time.perf_counter() - start)}

    serve(replies, call)


if __name__ == "__main__":
    main(*sys.argv[1:])
