"""AP with test-time augmentation, and with NMS instead of the mean, by variants and grouping.

    python tests/benchmarks/augmentation.py --model best.pt --data bccd/data.yaml --imgsz 320

Each variant of each image is detected once; every row of the table merges the same detections.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import numpy as np

from rtdetr_cli.backends.load import load_detector
from rtdetr_cli.core.console import result
from rtdetr_cli.core.detections import Detections
from rtdetr_cli.core.image import read_image
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.engine.predicting import merging
from rtdetr_cli.engine.predicting.augmentation import Variant, fuse_variants, varied
from rtdetr_cli.engine.predicting.filters import _without_duplicates
from rtdetr_cli.engine.predicting.views import View, whole
from rtdetr_cli.engine.val import match_model
from rtdetr_cli.evaluation.coco import CocoEvaluator

EVERY = tuple(Variant(scale, mirrored) for scale in (1, 0.83, 1.2) for mirrored in (False, True))
SETS = {
    "the image alone": EVERY[:1],
    "0.83 alone": EVERY[2:3],
    "1.2 alone": EVERY[4:5],
    "and mirrored": EVERY[:2],
    "augment=true": (EVERY[0], EVERY[1], EVERY[3], EVERY[4]),
    "all six": EVERY,
}
Seen = dict[Variant, tuple[View, Detections]]
MOST = 300


def see(detector, path, size_hw, variants) -> Seen:
    """What a detector finds in each variant of an image."""
    image, seen = read_image(path), {}
    for variant in variants:
        (view,) = varied([whole(image.shape[:2], size_hw)], [variant])
        planes = view.planes(image, detector.preprocessing.antialias)
        (found,) = detector.detect(np.ascontiguousarray(planes[None]), [view.part_hw], MOST)
        seen[variant] = view, view.to_image(found)
    return seen


def mean(seen: Seen, same: float, nms: float | None = None) -> Detections:
    """The fusion of `augment=true`, boxes grouped above the IoU `same`; then NMS."""
    with patch.object(merging, "_SAME", same):
        views, found = zip(*seen.values(), strict=True)
        fused = fuse_variants([*views], [*found])[1][0]
    return fused if nms is None else fused.keep(_without_duplicates(fused, nms, agnostic=False))


def suppressed(seen: Seen, same: float) -> Detections:
    """The detections of all variants after NMS."""
    columns = ("boxes_xyxy", "scores", "labels")
    parts = [found for _, found in seen.values()]
    together = Detections(*(np.concatenate([getattr(p, key) for p in parts]) for key in columns))
    together = together.keep(np.argsort(-together.scores, kind="stable"))
    return together.keep(_without_duplicates(together, same, agnostic=False))


MERGES: dict[str, Callable[[Seen], Detections]] = {
    "mean, IoU 0.5": partial(mean, same=0.5),
    "mean, IoU 0.7": partial(mean, same=0.7),
    "mean, then nms=0.5": partial(mean, same=0.5, nms=0.5),
    "NMS, IoU 0.5": partial(suppressed, same=0.5),
    "NMS, IoU 0.7": partial(suppressed, same=0.7),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--imgsz", type=int, default=320)
    given = parser.parse_args()
    detector = load_detector(given.model, "cpu")
    split = match_model(open_split(load_data(given.data, False, "error"), "val"), detector)
    possible = [one for one in EVERY if detector.size_is_free or one.scale == 1]
    size_hw = (given.imgsz, given.imgsz)
    seen = {one.image_id: see(detector, one.path, size_hw, possible) for one in split.records}
    result(f"{len(split)} images", "| variants | merge | AP | AP50 | AP75 |")
    for name, variants in SETS.items():
        if not set(variants) <= set(possible):
            continue
        for how, merge in MERGES.items():
            evaluator = CocoEvaluator(split.ground_truth(), split.category_ids)
            for image_id, parts in seen.items():
                merged = merge({variant: parts[variant] for variant in variants})
                evaluator.update(image_id, merged.keep(slice(MOST)))
            stats = evaluator.compute().stats
            values = " | ".join(f"{stats[key]:.4f}" for key in ("AP", "AP50", "AP75"))
            result(f"| {name} | {how} | {values} |")


if __name__ == "__main__":
    main()
