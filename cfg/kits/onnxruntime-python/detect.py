"""Detect objects in images: python detect.py bus.jpg [more images] [--conf 0.25].

Needs onnxruntime, numpy and pillow. Prints name, score and x1 y1 x2 y2 in pixels, best first.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps
from resize import resize

HERE = Path(__file__).resolve().parent


class Detector:
    """model.onnx with the class names and the preprocessing of model.json."""

    def __init__(self, providers: tuple[str, ...] = ("CPUExecutionProvider",)) -> None:
        """Open the two files; CUDAExecutionProvider needs onnxruntime-gpu."""
        self.facts = json.loads((HERE / "model.json").read_text("utf-8"))
        self.session = onnxruntime.InferenceSession(
            str(HERE / "model.onnx"), providers=list(providers)
        )

    def __call__(self, image: Image.Image, conf: float = 0.25) -> list[tuple]:
        """Return (name, score, x1, y1, x2, y2) of each object above `conf`, best first."""
        image = ImageOps.exif_transpose(image).convert("RGB")
        facts = self.facts
        pixels = resize(image, facts["width"], facts["height"], facts["antialias"])
        labels, boxes, scores = self.session.run(
            ["labels", "boxes", "scores"],
            {
                "images": pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255,
                "orig_target_sizes": np.array([image.size], np.int64),  # width, height
            },
        )
        found = zip(labels[0], scores[0], boxes[0], strict=True)
        return [
            (facts["names"][label], float(score), *map(float, box))
            for label, score, box in found
            if score > conf
        ]


def main() -> None:
    """Print what is in each image."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--conf", type=float, default=0.25, help="least score that is printed")
    options = parser.parse_args()
    detector = Detector()
    for path in options.images:
        if len(options.images) > 1:
            print(path)
        for name, score, *box in detector(Image.open(path), options.conf):
            print(f"{name} {score:.4f} " + " ".join(f"{edge:.2f}" for edge in box))


if __name__ == "__main__":
    main()
