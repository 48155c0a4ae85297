"""Tiny data sets on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rtdetr_cli.core.structures import Batch
from rtdetr_cli.data.loader import TrainLoader


def save_image(path: Path, height: int = 40, width: int = 60, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def epoch(
    loader: TrainLoader, number: int = 0, strong: bool = True, start_step: int = 0
) -> list[Batch]:
    """Return the batches of an epoch."""
    loader.set_epoch(number, strong)
    return list(loader.batches(start_step))


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    """Require equal ids, images and targets."""
    assert len(first) == len(second)
    for ours, other in zip(first, second, strict=True):
        assert ours.image_ids == other.image_ids
        assert torch.equal(ours.images, other.images)
        for target, expected in zip(ours.targets, other.targets, strict=True):
            assert torch.equal(target.boxes_cxcywh, expected.boxes_cxcywh)
            assert torch.equal(target.labels, expected.labels)


@pytest.fixture
def yolo_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write images with these label files (None: no file) and a data.yaml; give the folder."""

    def write(*labels: str | None, split: str = "train") -> Path:
        for number, text in enumerate(labels):
            save_image(tmp_path / "images" / split / f"{number}.png", seed=number)
            path = tmp_path / "labels" / split / f"{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is not None:
                path.write_text(text, "utf-8")
        yaml = "train: images/train\nval: images/val\nnames: [cat, dog]\n"
        (tmp_path / "data.yaml").write_text(yaml, "utf-8")
        return tmp_path

    return write


@pytest.fixture
def coco_json(tmp_path: Path) -> Callable[..., Path]:
    """Write a COCO json with two images of 60x40 and gaps in its ids; change it by keywords."""

    def write(**changes: object) -> Path:
        for name in ("a.png", "b.png"):
            save_image(tmp_path / "train" / name)
        content = {
            "images": [
                {"id": 30, "file_name": "a.png", "height": 40, "width": 60},
                {"id": 10, "file_name": "b.png", "height": 40, "width": 60},
            ],
            "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
            "annotations": [
                {"id": 0, "image_id": 30, "category_id": 7, "bbox": [1.5, 2, 10, 20], "area": 99},
                {"id": 5, "image_id": 30, "category_id": 3, "bbox": [0, 0, 60, 40], "iscrowd": 1},
            ],
        }
        path = tmp_path / "annotations" / "instances_train.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content | changes), "utf-8")
        return path

    return write
