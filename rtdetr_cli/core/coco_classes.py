"""The 80 classes of COCO: their names, and the ids that its own files give them."""

from __future__ import annotations

from collections.abc import Mapping

_COCO_NAMES = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire "
    "hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, "
    "bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, "
    "snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, "
    "tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, "
    "sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted "
    "plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, "
    "microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, "
    "hair drier, toothbrush"
)
COCO_NAMES: dict[int, str] = dict(enumerate(_COCO_NAMES.split(", ")))
"""Also of the published weights, in the order of their heads."""
_UNUSED_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_CATEGORY_IDS = tuple(number for number in range(1, 91) if number not in _UNUSED_IDS)
"""Of each class, in their order; ten of the ids up to 90 were never annotated."""


def category_ids(names: Mapping[int, str]) -> dict[int, int]:
    """The category id of each class index: COCO's own for its 80 classes, else counted from 1."""
    if names == COCO_NAMES:
        return dict(enumerate(COCO_CATEGORY_IDS))
    return {label: label + 1 for label in names}
