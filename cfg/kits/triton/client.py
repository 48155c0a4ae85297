"""Ask a Triton server what is in images: python client.py bus.jpg [--url localhost:8000].

Needs tritonclient[http], numpy and pillow. Prints name, score and x1 y1 x2 y2 in pixels.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import tritonclient.http as triton
from PIL import Image, ImageOps
from resize import resize

FACTS = json.loads(Path(__file__).resolve().with_name("model.json").read_text("utf-8"))


def make_inputs(image: Image.Image) -> list[triton.InferInput]:
    """What the model takes: the stretched image, and the (width, height) of the original."""
    pixels = resize(image, FACTS["width"], FACTS["height"], FACTS["antialias"])
    images = triton.InferInput("images", [1, 3, *pixels.shape[:2]], "FP32")
    images.set_data_from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255)
    sizes = triton.InferInput("orig_target_sizes", [1, 2], "INT64")
    sizes.set_data_from_numpy(np.array([image.size], np.int64))
    return [images, sizes]


def main() -> None:
    """Print what is in each image."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--url", default="localhost:8000")
    parser.add_argument("--conf", type=float, default=0.25, help="least score that is printed")
    options = parser.parse_args()
    client = triton.InferenceServerClient(options.url)
    for path in options.images:
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        response = client.infer(FACTS["name"], make_inputs(image))
        labels, boxes, scores = (
            response.as_numpy(name)[0] for name in ("labels", "boxes", "scores")
        )
        for label, box, score in zip(labels, boxes, scores, strict=True):
            if score > options.conf:
                edges = " ".join(f"{edge:.2f}" for edge in box)
                print(f"{FACTS['names'][label]} {score:.4f} {edges}")


if __name__ == "__main__":
    main()
