"""The peer of bench_predict.py; runs in an environment with Ultralytics, as a black box."""

from __future__ import annotations

import sys
import time

from interleave import Times, reserve_stdout, serve


def main(architecture: str, image: str) -> None:
    """Predict one image per call, with random weights."""
    replies = reserve_stdout()
    from ultralytics import RTDETR, settings

    settings.update({"sync": False})
    model = RTDETR(architecture)

    def call() -> Times:
        start = time.perf_counter()
        model.predict(image, imgsz=640, device="cpu", save=False, verbose=False)
        return {"image": 1000 * (time.perf_counter() - start)}

    serve(replies, call)


if __name__ == "__main__":
    main(*sys.argv[1:])
