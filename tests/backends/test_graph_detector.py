"""What graphs answer becomes Detections, or a sentence; no runtime is needed for that."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rtdetr_cli.backends.contract import Value, recognise
from rtdetr_cli.backends.graph_detector import OutputFilter, detect_in_parts
from rtdetr_cli.core.errors import WeightsError

NAN, INF = float("nan"), float("inf")
FLOAT, INT = "tensor(float)", "tensor(int64)"
IMAGE = Value("images", FLOAT, ["n", 3, 32, 64])
OFFICIAL = recognise(
    [IMAGE, Value("orig_target_sizes", INT, ["n", 2])],
    [Value("labels", INT, []), Value("boxes", FLOAT, []), Value("scores", FLOAT, [])],
    {},
    "x.onnx",
)
LOGITS = recognise(
    [Value("pixel_values", FLOAT, ["n", 3, 32, 64])],
    [Value("logits", FLOAT, ["n", "q", 2]), Value("pred_boxes", FLOAT, ["n", "q", 4])],
    {},
    "x.onnx",
)
ROWS = recognise([IMAGE], [Value("output0", FLOAT, ["n", "q", 6])], {}, "x.onnx")
NAMES = {0: "cat", 1: "dog"}


def detect(contract, *answers, count=1, max_det=300, output_filter=None):
    output_filter = output_filter or OutputFilter("x.onnx", NAMES, "those of the file")
    images, sizes_hw = torch.zeros(count, 3, 32, 64), [(50, 100)] * count
    return detect_in_parts(contract, images, sizes_hw, max_det, lambda feed: answers, output_filter)


def official(labels=(0, 1), boxes=((1, 2, 3, 4), (5, 6, 7, 8)), scores=(0.9, 0.5)):
    return np.array([labels]), np.array([boxes], np.float32), np.array([scores], np.float32)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": (2, 1)}, "class 2: those of the file end at 1"),
        ({"labels": (-1, 1)}, "class -1: those of the file end at 1"),
        ({"labels": (2**62, 1)}, f"class {2**62}"),
        ({"scores": (NAN, 0.5)}, "a score of nan"),
        ({"scores": (INF, 0.5)}, "a score of inf"),
        ({"scores": (1.5, 0.5)}, "a score of 1.5"),
        ({"scores": (-0.1, 0.5)}, "a score of -0.1"),
        ({"boxes": ((NAN, 2, 3, 4), (5, 6, 7, 8))}, "a box [nan, 2, 3, 4] for an image of 100x50"),
        ({"boxes": ((1, -INF, 3, 4), (5, 6, 7, 8))}, "a box [1, -inf, 3, 4]"),
        ({"boxes": ((1, 2, 3, 1e9), (5, 6, 7, 8))}, "a box [1, 2, 3, 1e+09]"),
    ],
)
def test_what_cannot_be_is_named_once_and_left_out(change, said, capsys):
    output_filter = OutputFilter("x.onnx", NAMES, "those of the file")
    for _ in range(3):
        found = detect(OFFICIAL, *official(**change), output_filter=output_filter)[0]
        assert found.labels.tolist() == [1]
        assert found.boxes_xyxy.tolist() == [[5, 6, 7, 8]]
        assert found.scores.tolist() == [0.5]
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert printed.startswith(f"Warning: x.onnx answers with {said}")


def test_boxes_a_little_outside_and_scores_rounded_in_16_bits_stay(capsys):
    answers = official(boxes=((-60, -20, 110, 70), (0, 0, 0, 0)), scores=(1.0005, 0))
    assert len(detect(OFFICIAL, *answers)[0]) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("broken", ["logits", "boxes"])
def test_rows_of_nan_do_not_take_the_place_of_others(broken):
    logits = np.array([[[NAN if broken == "logits" else 5, 4], [1, 0]]], np.float32)
    boxes = np.full((1, 2, 4), 0.5, np.float32)
    boxes[0, 0, 0] = NAN if broken == "boxes" else 0.5
    found = detect(LOGITS, logits, boxes, max_det=2)[0]
    best = [4, 1] if broken == "logits" else [1, 0]
    assert found.scores.tolist() == pytest.approx(torch.tensor(best).sigmoid().tolist())


@pytest.mark.parametrize(
    ("contract", "answers", "expected"),
    [
        (OFFICIAL, official(labels=(0,)), r"labels \[1, 1\], boxes \[1, 1, 4\], scores \[1, 1\]"),
        (OFFICIAL, official(scores=(0.9,)), r"scores \[1, 2\]"),
        (OFFICIAL, official(boxes=((1, 2, 3),) * 2), r"boxes \[1, 2, 4\]"),
        (OFFICIAL, [one[0] for one in official()], r"labels \[1, "),
        (OFFICIAL, [one.repeat(2, axis=0) for one in official()], r"labels \[1, 2\]"),
        (OFFICIAL, [one[0, 0] for one in official()], r"labels \[1, 1\]"),
        (LOGITS, [np.zeros((1, 5, 2)), np.zeros((1, 4, 4))], r"boxes \[1, 5, 4\]"),
        (LOGITS, [np.zeros((1, 5, 0)), np.zeros((1, 5, 4))], r"logits \[1, 5, 2\]"),
        (LOGITS, [np.zeros((1, 5, 3)), np.zeros((1, 5, 4))], r"logits \[1, 5, 2\]"),
        (ROWS, [np.zeros((1, 5, 4))], r"output0 \[1, 5, 5\]"),
        (ROWS, [np.zeros(7)], r"output0 \[1, 1, 5\]"),
    ],
)
def test_outputs_that_do_not_go_together_are_one_sentence(contract, answers, expected):
    with pytest.raises(WeightsError, match=rf"x\.onnx gives .* for 1 images; .*{expected}"):
        detect(contract, *answers)


@pytest.mark.parametrize(
    ("labels", "kind"),
    [(np.array([["a", "b"]]), "<U1"), (np.array([[0.0, 1.0]]), "float64"), ([[0, 1]], "list")],
)
def test_outputs_that_are_no_numbers_are_one_sentence(labels, kind):
    with pytest.raises(WeightsError, match=f"labels as {kind}; expected are whole numbers"):
        detect(OFFICIAL, labels, *official()[1:])


def test_rows_with_an_infinite_box_lose_that_one_only(capsys):
    rows = np.array([[[INF, 0.5, 0.1, 0.1, 0.9, 0], [0.5, 0.5, 0.1, 0.1, 0.8, 1]]], np.float32)
    assert detect(ROWS, rows)[0].labels.tolist() == [1]
    assert "a box [inf, " in capsys.readouterr().err


def test_other_types_of_numbers_are_read_and_empty_outputs_too():
    labels, boxes, scores = official()
    answers = (labels.astype(np.int32), boxes.astype(np.float64), scores.astype(np.float16))
    assert detect(OFFICIAL, *answers)[0].labels.tolist() == [0, 1]
    empty = (labels[:, :0], boxes[:, :0], scores[:, :0])
    assert len(detect(OFFICIAL, *empty)[0]) == 0
    assert len(detect(LOGITS, np.zeros((1, 0, 2)), np.zeros((1, 0, 4)))[0]) == 0
    assert len(detect(ROWS, np.zeros((1, 0, 6)))[0]) == 0


def test_the_number_of_classes_is_bounded_before_their_names_are_made():
    logits = Value("logits", FLOAT, ["n", "q", 10**9])
    sides = [Value("pixel_values", FLOAT, ["n", 3, 32, 64])]
    with pytest.raises(WeightsError, match="has 1000000000 classes; 1 to 65536 are known"):
        recognise(sides, [logits, Value("pred_boxes", FLOAT, ["n", "q", 4])], {}, "x.onnx")
