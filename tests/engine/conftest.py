"""A tiny data set in files and a tiny architecture in YAML, for runs through the real command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from rtdetr_cli.config.load import model_config_to_dict
from rtdetr_cli.config.model import ModelConfig
from rtdetr_cli.core.boxes import Boxes
from rtdetr_cli.core.image import Pixels
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine images of 80x64 pixels with one or two red or green squares; YOLO labels."""
    root = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    for split, count in (("train", 9), ("val", 4)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(90, 110, (64, 80, 3), np.uint8)
            lines = []
            for label in range(1 + number % 2):
                x, y, side = rng.integers(0, 40), rng.integers(0, 30), rng.integers(12, 30)
                image[y : y + side, x : x + side] = (0, 0, 255) if label else (0, 255, 0)
                box = ((x + side / 2) / 80, (y + side / 2) / 64, side / 80, side / 64)
                lines.append(f"{label} " + " ".join(f"{value:.6f}" for value in box))
            cv2.imwrite(str(root / "images" / split / f"{number}.png"), image)
            (root / "labels" / split / f"{number}.txt").write_text("\n".join(lines))
    names = {0: "green", 1: "red"}
    text = yaml.safe_dump({"train": "images/train", "val": "images/val", "names": names})
    (root / "data.yaml").write_text(text)
    return root


@pytest.fixture
def tiny_yaml(tiny_config: ModelConfig, tmp_path: Path) -> Path:
    """The tiny architecture as a file."""
    return write_architecture(tiny_config, tmp_path / "tiny.yaml")


@pytest.fixture
def checkpoint(tiny_config, tmp_path: Path) -> Path:
    """Random weights whose boxes are spread over the image."""
    torch.manual_seed(3)
    network = RTDETRNetwork(tiny_config, num_classes=2)
    for head in (network.decoder.enc_bbox_head, *network.decoder.dec_bbox_head):
        torch.nn.init.normal_(head.layers[-1].weight, std=0.5)
    names = {0: "green", 1: "red"}
    path = tmp_path / "tiny.pt"
    save_checkpoint(path, Checkpoint(tiny_config, names, network.state_dict()))
    return path


def write_architecture(config: ModelConfig, path: Path) -> Path:
    """Write an architecture as the YAML of a user."""
    values = model_config_to_dict(config)
    for derived in ("name", "norm_eps"):
        values.pop(derived)
    path.write_text(yaml.safe_dump(values))
    return path


class NearestTracker:
    """Stands in for the library: matches a box with the nearest track within 20 pixels."""

    def __init__(self, fps: float) -> None:
        self.fps = fps
        self.times: list[float] = []
        self._centres: dict[int, tuple[float, float]] = {}

    def update(self, boxes: Boxes, image_bgr: Pixels, time_s: float) -> NDArray[np.int64]:
        assert image_bgr.ndim == 3
        self.times.append(time_s)
        ids = np.zeros(len(boxes), np.int64)
        for row, (x, y, *_) in enumerate(boxes.numpy().xywh.tolist()):
            near = [one for one, (a, b) in self._centres.items() if abs(a - x) + abs(b - y) < 20]
            ids[row] = near[0] if near else len(self._centres) + 1
            self._centres[int(ids[row])] = (x, y)
        return ids


@pytest.fixture
def opened_trackers() -> tuple[Callable[[float], NearestTracker], list[NearestTracker]]:
    """Opens stand-ins for the library's trackers, and the list of those opened."""
    opened: list[NearestTracker] = []

    def open_one(fps: float) -> NearestTracker:
        opened.append(NearestTracker(fps))
        return opened[-1]

    return open_one, opened
