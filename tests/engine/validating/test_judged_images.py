"""The panels of an image show each box in the color of its verdict."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rtdetr_cli.core.detections import Detections
from rtdetr_cli.engine.validating.judged_images import COLORS, judged_card, verdict_legend
from rtdetr_cli.evaluation.coco import CocoEvaluator
from rtdetr_cli.evaluation.image_scores import Verdict, score_images
from rtdetr_cli.report.parts import Panel

NAMES = {0: "cat"}


@pytest.fixture
def white(tmp_path: Path) -> Path:
    Image.new("RGB", (640, 480), (255, 255, 255)).save(tmp_path / "white.png")
    return tmp_path / "white.png"


def shows(panel: Panel, verdict: Verdict) -> bool:
    """Whether the color of a verdict is in a panel, as far as JPEG keeps it."""
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(panel.image.uri.split(",")[1]))))
    gap = np.abs(pixels.astype(int) - COLORS[verdict]).max(axis=2)
    return int((gap < 40).sum()) > 50


def test_missed_and_found_are_left_false_and_right_are_right(white):
    boxes = [[20, 150, 200, 200], [300, 150, 200, 200]]
    evaluator = CocoEvaluator(
        {
            "images": [{"id": 7}],
            "annotations": [
                {"id": n, "image_id": 7, "category_id": 1, "bbox": box}
                for n, box in enumerate(boxes, 1)
            ],
            "categories": [{"id": 1, "name": "cat"}],
        },
        [1],
    )
    found = torch.tensor([[20.0, 150, 220, 350], [540, 20, 630, 100]])
    evaluator.update(7, Detections(found, torch.tensor([0.9, 0.95]), torch.zeros(2).long()))
    boxes, detections = score_images(evaluator).boxes(7)
    panels = [("Ground truth", boxes), ("b.pt", detections)]
    card = judged_card("caption", white, panels, NAMES)
    truth, detections = card.panels
    assert (truth.title, detections.title, card.caption) == ("Ground truth", "b.pt", "caption")
    assert {one for one in Verdict if shows(truth, one)} == {Verdict.RIGHT, Verdict.MISSED}
    assert {one for one in Verdict if shows(detections, one)} == {Verdict.RIGHT, Verdict.FALSE}


def test_the_legend_has_every_verdict():
    assert all(f"rgb{color}" in verdict_legend() for color in COLORS.values())
    assert set(COLORS) == set(Verdict)
    assert len(set(COLORS.values())) == len(Verdict)
