"""The peer of bench_predict.py; runs in an environment with Ultralytics, as a black box."""

from __future__ import annotations

import sys
import time

from interleave import Times, serve, take_answers


def main(architecture: str, picture: str) -> None:
    """Predict one picture per call, with random weights."""
    answers = take_answers()
    from ultralytics import RTDETR, settings

    settings.update({"sync": False})
    model = RTDETR(architecture)

    def call() -> Times:
        start = time.perf_counter()
        model.predict(picture, imgsz=640, device="cpu", save=False, verbose=False)
        return {"picture": 1000 * (time.perf_counter() - start)}

    serve(answers, call)


if __name__ == "__main__":
    main(*sys.argv[1:])
