"""Fine-tuning starts near what the weights know, whatever the number of classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rtdetr_cli import RTDETR
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.engine.training.optim import train_mode
from rtdetr_cli.engine.training.prepare import prepare
from rtdetr_cli.engine.training.step import train_step
from rtdetr_cli.loss.criterion import Criterion
from tests.engine.conftest import write_architecture


@pytest.fixture(scope="module")
def trained(tiny_config, squares, tmp_path_factory) -> str:
    """Two epochs of the tiny network on its two classes."""
    tmp_path = tmp_path_factory.mktemp("trained")
    model = RTDETR(str(write_architecture(tiny_config, tmp_path / "tiny.yaml")))
    model.train(data=str(squares / "data.yaml"), project=str(tmp_path / "first"), imgsz=64, batch=3,
                epochs=2, workers=0, device="cpu", plots=False)  # fmt: skip
    return model.ckpt_path


@pytest.mark.parametrize("num_classes", [1, 3, 80, 1203])
def test_the_first_step_is_not_at_a_loss_of_hundreds(num_classes, trained, squares, tmp_path):
    loss = first_loss(trained, squares, num_classes, tmp_path)
    # Five prediction sets (encoder, two decoder layers, denoising in both), each with 5 L1 + 2 GIoU
    # of 4 to 6 for barely trained boxes (measured: 26.7 to 29.8 in all) and VFL below 0.1 with the
    # prior of 0.01. Class rows at 0.5 would add 0.75 * 0.5**2 * log(2) * 20 queries * num_classes /
    # num_boxes to each: 30 with 80 classes, 500 with 1203.
    assert 20 < loss < 40


def first_loss(model: str, data: Path, num_classes: int, folder: Path) -> float:
    """The loss of the first batch, with all labels taken modulo the number of classes."""
    for split in ("train", "val"):
        (folder / "images").mkdir(exist_ok=True)
        (folder / "images" / split).symlink_to(data / "images" / split)
        (folder / "labels" / split).mkdir(parents=True)
        for path in (data / "labels" / split).iterdir():
            rows = [line.split() for line in path.read_text().splitlines()]
            text = "\n".join(" ".join([str(int(row[0]) % num_classes), *row[1:]]) for row in rows)
            (folder / "labels" / split / path.name).write_text(text)
    names = {number: f"class {number}" for number in range(num_classes)}
    values = {"train": "images/train", "val": "images/val", "names": names}
    (folder / "data.yaml").write_text(yaml.safe_dump(values))
    run = prepare(
        TrainSettings(model=model, data=str(folder / "data.yaml"), project=str(folder), imgsz=64,
                      batch=4, workers=0, device="cpu", plots=False)
    )  # fmt: skip
    train_mode(run.network, run.recipe)
    losses = train_step(run, Criterion(), next(iter(run.data.train_batches)))
    assert losses is not None
    return losses["loss"].item()
