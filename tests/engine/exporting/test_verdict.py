"""The verdict: planted faults are found, drift is measured correctly, doubts are reported."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from rtdetr_cli.backends.load import load_detector
from rtdetr_cli.backends.torch import TorchDetector
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.detections import Detections
from rtdetr_cli.data.selection import match_classes
from rtdetr_cli.engine.exporting.images import NUM_IMAGES, Images, find_images
from rtdetr_cli.engine.exporting.verdict import (
    LIMITS,
    Agreement,
    Drift,
    compare,
    compare_image,
    judge,
    run_detector,
    warn_if_unsure,
)

SIDES = ((64, 96), (48, 96), (96, 32), (64, 64))
"""Sizes of the images; not all square, so that swapping sides changes the result."""


def images() -> Images:
    rng = np.random.default_rng(0)
    return Images([rng.integers(0, 256, (*side, 3), np.uint8) for side in SIDES])


class Detector:
    """Returns 20 detections whose boxes, scores and classes depend on the channel means."""

    names: ClassVar = dict(enumerate("abc"))
    preprocessing = Preprocessing((32, 32), False)
    description = "toy"

    def __init__(self, fault: str = "none", size: float = 1.0, top_score: float = 0.9) -> None:
        self.fault, self.size, self.top_score = fault, size, top_score

    def detect(self, images, sizes_hw, max_det=300):
        if self.fault == "BGR":
            images = images.flip(1)
        if self.fault == "0..255":
            images = images * 255
        if self.fault == "letterbox":
            images = torch.nn.functional.pad(images[:, :, 8:-8], (0, 0, 8, 8), value=114 / 255)
        if self.fault == "width and height exchanged":
            sizes_hw = [(width, height) for height, width in sizes_hw]
        return [self.find(*one) for one in zip(images, sizes_hw, strict=True)]

    def find(self, image: torch.Tensor, size_hw: tuple[int, int]) -> Detections:
        means = image.mean((1, 2)) * torch.tensor([1.0, 2.0, 3.0])
        rank = torch.arange(20.0)
        phases = 7 * means.sum() + means[0] + rank[:, None] * torch.tensor([1.0, 2.0, 3.0, 4.0])
        corners = phases.sin() * 0.2 + torch.tensor([0.3, 0.3, 0.7, 0.7])
        scores = self.top_score * torch.exp(-rank / 8) * (0.5 + 0.5 * phases[:, 0].cos() ** 2)
        labels = (rank.long() + (means[1] * 100).long()) % 3
        height, width = size_hw
        boxes = corners * torch.tensor([width, height, width, height])
        order = scores.argsort(descending=True)
        return self.spoil(Detections(boxes[order], scores[order], labels[order]))

    def spoil(self, one: Detections) -> Detections:
        boxes, scores, labels = one.boxes_xyxy, one.scores, one.labels
        match self.fault:
            case "no numbers":
                boxes, scores = boxes * math.nan, scores * math.nan
            case "the best one lost":
                scores = torch.cat((torch.zeros(1), scores[1:]))
            case "nothing found":
                scores = scores * 0.01
            case "scores drift":
                scores = (scores + self.size * noise(scores)).clip(0, 1)
            case "labels shifted":
                labels = labels + 1
            case _:
                boxes = self.move(boxes)
        return Detections(boxes.numpy(), scores.numpy(), labels.numpy())

    def move(self, boxes: torch.Tensor) -> torch.Tensor:
        if self.fault == "boxes and scores of other rows":
            return boxes.roll(1, 0)
        if self.fault == "cxcywh":
            low, high = boxes[:, :2], boxes[:, 2:]
            return torch.cat(((low + high) / 2, high - low), 1)
        # as with a quantized decoder, or a box chain of 8 bits
        return boxes + self.size * noise(boxes) if self.fault == "boxes drift" else boxes


def noise(like: torch.Tensor) -> torch.Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(1))


FAULTS = [
    "BGR",
    "0..255",
    "letterbox",
    "width and height exchanged",
    "labels shifted",
    "boxes and scores of other rows",
    "no numbers",
    "cxcywh",
    "the best one lost",
    "nothing found",
]


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_at_every_precision(fault, precision):
    limits = LIMITS[precision]
    assert compare(Detector(), Detector(), images(), limits).passes
    found = compare(Detector(), Detector(fault), images(), limits)
    assert not found.passes
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("fault", "size", "passing"),
    [
        ("boxes drift", 0.005, ["fp32", "fp16", "tf32", "bf16", "int8"]),
        ("boxes drift", 0.02, ["bf16", "int8"]),  # every box, by more than rounding does
        ("boxes drift", 0.06, ["int8"]),
        ("boxes drift", 0.15, ["int8"]),
        ("boxes drift", 0.3, []),
        ("boxes drift", 3.0, []),
        ("scores drift", 0.002, ["fp32", "fp16", "tf32", "bf16", "int8"]),
        ("scores drift", 0.007, ["fp16", "tf32", "bf16", "int8"]),
        ("scores drift", 0.03, ["int8"]),
        ("scores drift", 0.2, []),
    ],
)
def test_each_precision_has_its_own_limit_of_drift(fault, size, passing):
    exported = Detector(fault, size)
    verdicts = {name: compare(Detector(), exported, images(), LIMITS[name]) for name in LIMITS}
    assert [name for name, agreement in verdicts.items() if agreement.passes] == passing


def detections(*rows: tuple[float, float, int]) -> Detections:
    """(x, score, class): squares of ten pixels."""
    boxes = torch.tensor([(x, 0.0, x + 10, 10.0) for x, _, _ in rows])
    scores, labels = (torch.tensor([row[n] for row in rows]) for n in (1, 2))
    return Detections(boxes.reshape(-1, 4).numpy(), scores.float().numpy(), labels.long().numpy())


def test_partners_are_the_nearest_of_their_class_in_any_order():
    ours = detections((0, 0.9, 0), (100, 0.8, 1), (100, 0.7, 1), (300, 0.6, 2))
    theirs = detections((100, 0.69, 1), (100.5, 0.8, 1), (0.25, 0.9, 0), (300, 0.6, 1))
    found = compare_image(ours, theirs, 640, LIMITS["fp32"])
    assert found.edges_px.tolist() == pytest.approx([0.25, 0.5, 0.0])
    assert found.scores.tolist() == pytest.approx([0.0, 0.0, 0.01], abs=1e-6)
    assert (found.sure, found.lost, found.new) == (4, 1, 1)  # the last one has another class
    assert found.matched == pytest.approx(2 * (0.9 + 0.8) + 0.7 + 0.69)
    assert found.total == pytest.approx(3.0 + 2.99)


def test_a_score_that_crosses_the_line_is_neither_lost_nor_new():
    found = compare_image(
        detections((0, 0.2501, 0)), detections((0, 0.2499, 0)), 640, LIMITS["fp32"]
    )
    assert (found.sure, found.lost, found.new) == (1, 0, 0)
    assert found.is_sure.tolist() == [True]


def test_no_detections_are_all_lost():
    found = compare_image(detections((0, 0.9, 0)), detections(), 640, LIMITS["int8"])
    assert (found.lost, found.matched, len(found.edges_px)) == (1, 0.0, 0)


def test_untrained_weights_pass_with_a_warning(capsys):
    untrained = Detector(top_score=0.02)
    agreement = compare(untrained, untrained, images())
    assert agreement.passes
    assert (agreement.detections, agreement.raw_detections) == (0, 4 * 20)
    assert agreement.to_dict()["compared"] == "raw detections"
    warn_if_unsure(agreement)
    assert "no detection reaches a score of 0.25 on these 4 images" in capsys.readouterr().err
    warn_if_unsure(compare(Detector(), Detector(), images()))
    assert capsys.readouterr().err == ""


def test_the_drift_is_that_of_sure_detections_if_any():
    ours = detections((0, 0.9, 0), (100, 0.01, 0))
    theirs = detections((0.5, 0.9, 0), (120, 0.01, 0))

    class Fixed(Detector):
        def __init__(self, found: Detections) -> None:
            self.found = found

        def detect(self, images, sizes_hw, max_det=300):
            return [self.found] * len(images)

    one = Images([np.zeros((640, 640, 3), np.uint8)])
    assert compare(Fixed(ours), Fixed(theirs), one).box_drift_px == Drift(0.5, 0.5, 0.5)


def test_faults_and_numbers_as_text():
    good = Agreement(8, 100, 2400, 1.0, Drift(0.1, 0.2, 0.3), Drift(0, 0, 0), 0, 0, (0.41, 0.409))
    assert good.faults == []
    assert "AP 0.4100 in PyTorch, 0.4090 in the file" in str(good)
    assert "box drift 0.1 median, 0.2 p99, 0.3 max px" in str(good)
    bad = replace(good, matched=0.5, lost=1, new=1, ap=(0.41, 0.4))
    assert bad.faults == [
        "50.00% match, at least 99% required",
        "1 lost and 1 new of 100 detections, at most 1% allowed",
        "AP fell by 0.0100, at most 0.002 allowed",
    ]
    assert not replace(good, ap=(0.41, 0.4)).passes
    assert replace(good, ap=(0.40, 0.41)).passes


class Painted(Detector):
    """Finds the green or red square of the data set `squares` by its color."""

    names: ClassVar = {0: "green", 1: "red"}
    preprocessing = Preprocessing((64, 80), False)

    def __init__(self, shift: float = 0.0) -> None:
        self.shift = shift

    def detect(self, images, sizes_hw, max_det=300):
        return [self.look(image) for image in images]

    def look(self, image: torch.Tensor) -> Detections:
        found = []
        for label, channel in ((0, 1), (1, 0)):
            others = image[[c for c in range(3) if c != channel]].amax(0)
            rows, columns = torch.where((image[channel] > 0.9) & (others < 0.1))
            if len(rows):
                x, y = columns.min() + self.shift, rows.min()
                found.append((x, y, columns.max() + 1 + self.shift, rows.max() + 1, label))
        values = np.array(found, np.float32).reshape(-1, 5)
        scores = np.full(len(values), 0.9, np.float32)
        return Detections(values[:, :4], scores, values[:, 4].astype(np.int64))


def test_labels_give_the_ap_of_both(squares):
    labelled = find_images(str(squares / "data.yaml"))
    assert labelled.truth is not None
    found = compare(Painted(), Painted(shift=4.0), labelled, LIMITS["int8"])
    assert found.ap is not None
    assert found.ap[0] > 0.8
    assert found.ap[1] < found.ap[0] - 0.1
    assert any("AP fell" in fault for fault in found.faults)


def test_labels_are_matched_by_name(squares):
    labelled = find_images(str(squares / "data.yaml"))
    assert labelled.truth is not None
    turned = match_classes(labelled.truth, {0: "red", 1: "green"})
    found = compare(Painted(), Painted(), replace(labelled, truth=turned), LIMITS["int8"])
    assert found.ap == compare(Painted(), Painted(), labelled, LIMITS["int8"]).ap


def test_labels_of_other_classes_give_no_ap(squares, capsys):
    labelled = find_images(str(squares / "data.yaml"))
    found = compare(Detector(), Detector(), labelled)
    assert found.ap is None
    assert "has 2 classes and the model 3" in capsys.readouterr().err


def test_images_come_from_a_data_set_a_folder_or_are_drawn(squares):
    split = find_images(str(squares / "data.yaml"))
    assert [one.shape for one in split.read(0, 9)] == [(64, 80, 3)] * 4
    assert [record.path for record in split.truth.records] == list(split.sources)
    folder = find_images(str(squares / "images" / "train"), count=5)
    assert [path.stem for path in folder.sources] == ["0", "2", "4", "6", "8"]
    assert folder.truth is None
    assert find_images(str(squares / "data.yaml"), count=2).truth.num_boxes > 0
    drawn = find_images(None)
    assert len({one.shape for one in drawn.read(0, 99)}) == NUM_IMAGES
    assert len(find_images(None, count=20).sources) == 20


def rounded(network: torch.nn.Module, parts: tuple[str, ...], bits: int) -> torch.nn.Module:
    """The same with the weights of some parts in so many bits, one scale for a tensor."""
    network = copy.deepcopy(network)
    for name, weight in network.named_parameters():
        if name.startswith(parts) and weight.ndim > 1:
            scale = weight.detach().abs().max() / (2 ** (bits - 1) - 1)
            weight.data = (weight.data / scale).round() * scale
    return network


@pytest.mark.slow
def test_planted_faults_in_a_trained_network(shared_data):
    """The results are listed in docs/benchmarks.md."""
    trained = load_detector(str(shared_data / "weights" / "ultralytics_n_bccd.pt"), "cpu")
    preprocessing = Preprocessing((320, 320), antialias=False)
    real = find_images(str(shared_data / "bccd" / "data.yaml"), 8)
    ours = run_detector(trained, real, preprocessing)
    assert ours.ap == pytest.approx(0.4906, abs=5e-4)  # when this was written

    class Altered:
        names, preprocessing, description = trained.names, trained.preprocessing, "altered"

        def __init__(self, change) -> None:
            self.change = change

        def detect(self, images, sizes_hw, max_det=300):
            return trained.detect(self.change(images), sizes_hw, max_det)

    def letterboxed(images):
        small = torch.nn.functional.interpolate(images, (240, 320), mode="bilinear")
        return torch.nn.functional.pad(small, (0, 0, 40, 40), value=114 / 255)

    def in_bits(parts, bits):
        network = rounded(trained.network, parts, bits)
        return TorchDetector(network, trained.names, preprocessing, torch.device("cpu"))

    def passing(detector):
        theirs = run_detector(detector, real, preprocessing)
        return [name for name in LIMITS if judge(ours, theirs, LIMITS[name]).passes]

    assert passing(trained) == list(LIMITS)
    assert passing(in_bits(("backbone", "encoder"), 8)) == ["int8"]
    assert passing(in_bits(("decoder",), 4)) == []
    assert passing(Altered(lambda images: images.flip(1))) == []
    assert passing(Altered(letterboxed)) == []
