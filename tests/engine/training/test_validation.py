"""Validation losses are those of the training loss, per box of the whole split."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from rtdetr_cli.cli.main import run
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.structures import Batch, ModelOutput, Target
from rtdetr_cli.engine.training.validation import ValidationDetector
from rtdetr_cli.loss.criterion import Criterion
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from tests.engine.test_train import command, read_rows


def make_batch(size_hw: tuple[int, int], boxes: list[list[list[float]]]) -> Batch:
    """Images of noise, each with its boxes cxcywh of class 1."""
    images = torch.rand(len(boxes), 3, *size_hw, generator=torch.Generator().manual_seed(3))
    targets = [
        Target(torch.tensor(rows).reshape(-1, 4), torch.ones(len(rows), dtype=torch.int64))
        for rows in boxes
    ]
    ids = list(range(len(boxes)))
    return Batch(images, targets, ids, [size_hw] * len(ids), [str(number) for number in ids])


def make_detector(network: RTDETRNetwork) -> ValidationDetector:
    state = SimpleNamespace(
        ema=SimpleNamespace(network=network),
        data=SimpleNamespace(train=SimpleNamespace(names={0: "a", 1: "b"})),
        preprocessing=Preprocessing((64, 64)),
        device=torch.device("cpu"),
    )
    return ValidationDetector(state, Criterion())  # type: ignore[arg-type]  (what it reads)


def test_losses_of_a_perfect_and_a_shifted_box_have_the_values_computed_by_hand(tiny_config):
    detector = make_detector(RTDETRNetwork(tiny_config, num_classes=2))
    far = [0.9, 0.9, 0.1, 0.1]
    logits = torch.full((2, 2, 2), -100.0)  # no class, so no query costs varifocal loss
    logits[:, 0, 1] = 100.0  # query 0 is certain of class 1
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.2], far], [[0.5, 0.5, 0.2, 0.2], far]])
    detector._output = ModelOutput(logits, boxes)
    detector.add_losses(make_batch((32, 32), [[[0.5, 0.5, 0.2, 0.2]], [[0.6, 0.5, 0.2, 0.2]]]))
    # The second box is half a width off: IoU 1/3; the hull 0.3 x 0.2 has no gap, so GIoU 1/3. Its
    # varifocal loss is the weight, IoU, times the cross entropy of score 1 and IoU, 100 (1 - IoU).
    expected = {
        "val/loss_vfl": 1 * (100 / 3) * (2 / 3) / 2,  # per box, two of them
        "val/loss_bbox": 5 * 0.1 / 2,
        "val/loss_giou": 2 * (1 - 1 / 3) / 2,
    }
    assert detector.mean_losses() == pytest.approx(expected, rel=1e-4)


def test_losses_of_batches_are_those_of_one_batch_with_all_boxes(tiny_config):
    """The criterion divides by the boxes of a batch, of which there are three, none and one."""
    torch.manual_seed(0)
    network = RTDETRNetwork(tiny_config, num_classes=2).eval()
    box, other = [0.4, 0.4, 0.3, 0.2], [0.7, 0.6, 0.1, 0.3]
    whole = make_batch((64, 64), [[box, other], [], [box], [other]])
    detector = make_detector(network)
    for part in ([0, 1], [2, 3]):
        targets = [whole.targets[index] for index in part]
        batch = Batch(whole.images[part], targets, part, [(64, 64)] * 2, ["", ""])
        detector.detect(batch.images, batch.sizes_hw)
        detector.add_losses(batch)
    with torch.no_grad():
        terms = Criterion()(network(whole.images), whole.targets)
    assert set(terms) == {"loss_vfl", "loss_bbox", "loss_giou"}
    expected = {f"val/{name}": value.item() for name, value in terms.items()}
    assert detector.mean_losses() == pytest.approx(expected, rel=1e-4)


def test_a_split_without_boxes_has_finite_losses(tiny_config):
    detector = make_detector(RTDETRNetwork(tiny_config, num_classes=2))
    batch = make_batch((64, 64), [[], []])
    detector.detect(batch.images, batch.sizes_hw)
    detector.add_losses(batch)
    losses = detector.mean_losses()
    assert losses["val/loss_bbox"] == losses["val/loss_giou"] == 0 < losses["val/loss_vfl"] < 100


def test_results_csv_has_validation_losses_in_the_epochs_that_are_validated(
    tiny_yaml, squares, tmp_path
):
    assert run(command(tiny_yaml, squares, tmp_path, "epochs=3", "val_every=2")) == 0
    rows = read_rows(tmp_path / "train")
    for name in ("val/loss_vfl", "val/loss_bbox", "val/loss_giou", "metrics/precision"):
        assert [bool(row[name]) for row in rows] == [False, True, True], name
    assert 0 < float(rows[-1]["val/loss_giou"]) < 4  # 2 * (1 - GIoU), GIoU in -1..1
