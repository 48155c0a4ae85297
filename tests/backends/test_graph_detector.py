"""Outputs of a graph become Detections or one error sentence; no runtime is needed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rtdetr_cli.backends.contract import Value
from rtdetr_cli.backends.graph_detector import Feed, GraphDetector, OpenGraph
from rtdetr_cli.backends.notes import parse_notes
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.detections import ALL_PAIRS, Selection
from rtdetr_cli.core.errors import WeightsError

NAN, INF = float("nan"), float("inf")
FLOAT, INT = "tensor(float)", "tensor(int64)"
IMAGE = Value("images", FLOAT, ["n", 3, 32, 64])
NAMES = "['cat', 'dog']"


def make_graph(*sides: list[Value], **texts: str) -> OpenGraph:
    return OpenGraph("x.onnx", "no runtime", *sides, {"names": NAMES, **texts}, None)


OFFICIAL = make_graph(
    [IMAGE, Value("orig_target_sizes", INT, ["n", 2])],
    [Value("labels", INT, []), Value("boxes", FLOAT, []), Value("scores", FLOAT, [])],
)
LOGITS = make_graph(
    [Value("pixel_values", FLOAT, ["n", 3, 32, 64])],
    [Value("logits", FLOAT, ["n", "q", 2]), Value("pred_boxes", FLOAT, ["n", "q", 4])],
)
ROWS = make_graph([IMAGE], [Value("output0", FLOAT, ["n", "q", 6])])


class Constant(GraphDetector):
    """A graph whose outputs do not depend on the images."""

    def __init__(self, graph: OpenGraph, *outputs: np.ndarray) -> None:
        super().__init__(graph)
        self._outputs = outputs

    def _run(self, feed: Feed):
        return self._outputs


def detect(graph, *outputs, max_det=300, selection=ALL_PAIRS):
    detector = Constant(graph, *outputs)
    return detector.detect(torch.zeros(1, 3, 32, 64), [(50, 100)], max_det, selection)


def official(labels=(0, 1), boxes=((1, 2, 3, 4), (5, 6, 7, 8)), scores=(0.9, 0.5)):
    return np.array([labels]), np.array([boxes], np.float32), np.array([scores], np.float32)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"labels": (2, 1)}, "class 2: from the file end at 1"),
        ({"labels": (-1, 1)}, "class -1: from the file end at 1"),
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
def test_implausible_detections_are_dropped_with_one_warning(change, reason, capsys):
    detector = Constant(OFFICIAL, *official(**change))
    for _ in range(3):
        found = detector.detect(torch.zeros(1, 3, 32, 64), [(50, 100)])[0]
        assert found.labels.tolist() == [1]
        assert found.boxes_xyxy.tolist() == [[5, 6, 7, 8]]
        assert found.scores.tolist() == [0.5]
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert printed.startswith(f"Warning: x.onnx returned {reason}")


def test_boxes_a_little_outside_and_scores_rounded_in_16_bits_stay(capsys):
    outputs = official(boxes=((-60, -20, 110, 70), (0, 0, 0, 0)), scores=(1.0005, 0))
    assert len(detect(OFFICIAL, *outputs)[0]) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("broken", ["logits", "boxes"])
def test_rows_of_nan_do_not_displace_valid_ones(broken):
    logits = np.array([[[NAN if broken == "logits" else 5, 4], [1, 0]]], np.float32)
    boxes = np.full((1, 2, 4), 0.5, np.float32)
    boxes[0, 0, 0] = NAN if broken == "boxes" else 0.5
    found = detect(LOGITS, logits, boxes, max_det=2)[0]
    best = [4, 1] if broken == "logits" else [1, 0]
    assert found.scores.tolist() == pytest.approx(torch.tensor(best).sigmoid().tolist())


@pytest.mark.parametrize(
    ("graph", "outputs", "expected"),
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
def test_inconsistent_shapes_are_one_sentence(graph, outputs, expected):
    with pytest.raises(WeightsError, match=rf"x\.onnx returns .* for 1 images; .*{expected}"):
        detect(graph, *outputs)


@pytest.mark.parametrize(
    ("labels", "kind"),
    [(np.array([["a", "b"]]), "<U1"), (np.array([[0.0, 1.0]]), "float64"), ([[0, 1]], "list")],
)
def test_outputs_of_another_type_are_one_sentence(labels, kind):
    with pytest.raises(WeightsError, match=f"labels as {kind}; expected whole numbers"):
        detect(OFFICIAL, labels, *official()[1:])


def test_only_the_row_with_an_infinite_box_is_dropped(capsys):
    rows = np.array([[[INF, 0.5, 0.1, 0.1, 0.9, 0], [0.5, 0.5, 0.1, 0.1, 0.8, 1]]], np.float32)
    assert detect(ROWS, rows)[0].labels.tolist() == [1]
    assert "a box [inf, " in capsys.readouterr().err


def test_other_number_types_and_empty_outputs_are_read():
    labels, boxes, scores = official()
    outputs = (labels.astype(np.int32), boxes.astype(np.float64), scores.astype(np.float16))
    assert detect(OFFICIAL, *outputs)[0].labels.tolist() == [0, 1]
    empty = (labels[:, :0], boxes[:, :0], scores[:, :0])
    assert len(detect(OFFICIAL, *empty)[0]) == 0
    assert len(detect(LOGITS, np.zeros((1, 0, 2)), np.zeros((1, 0, 4)))[0]) == 0
    assert len(detect(ROWS, np.zeros((1, 0, 6)))[0]) == 0


def test_the_number_of_classes_is_checked_before_names_are_made():
    logits = Value("logits", FLOAT, ["n", "q", 10**9])
    sides = [Value("pixel_values", FLOAT, ["n", 3, 32, 64])]
    with pytest.raises(WeightsError, match="has 1000000000 classes; 1 to 65536 are valid"):
        Constant(make_graph(sides, [logits, Value("pred_boxes", FLOAT, ["n", "q", 4])]))


def test_our_notes_set_names_antialiasing_and_the_default_of_a_free_size():
    sides = [
        [Value("images", FLOAT, ["n", 3, "h", "w"]), Value("orig_target_sizes", INT, ["n", 2])],
        OFFICIAL.outputs,
    ]
    values = {"names": {"0": "cell"}, "preprocessing": {"size_hw": [96, 64], "antialias": False}}
    graph = OpenGraph("x.onnx", "R 1.0", *sides, {"rtdetr_format": "1"}, parse_notes(values, "x"))
    detector = Constant(graph)
    assert detector.names == {0: "cell"}
    assert detector.preprocessing == Preprocessing((96, 64), antialias=False)
    assert (detector.size_is_free, detector.network, detector.device) == (True, None, None)
    assert detector.description == "x.onnx, R 1.0"
    huge = {"preprocessing": {"size_hw": [16384, 16384]}}
    graph = OpenGraph("x.onnx", "R 1.0", *sides, {"rtdetr_format": "1"}, parse_notes(huge, "x"))
    with pytest.raises(WeightsError, match="takes images of 16384x16384"):
        Constant(graph)


def test_logits_are_selected_by_class_before_the_ranking(capsys):
    logits = np.array([[[9, 1], [8, -1], [7, 0]]], np.float32)
    boxes = np.full((1, 3, 4), 0.5, np.float32)
    (found,) = detect(LOGITS, logits, boxes, max_det=2, selection=Selection((1,)))
    assert found.labels.tolist() == [1, 1]
    assert found.scores.tolist() == pytest.approx(torch.tensor([1.0, 0.0]).sigmoid().tolist())
    assert capsys.readouterr().err == ""


def ranked(lowest):
    """300 rows as of a graph that selects the best pairs of all classes; the last is of class 1."""
    scores = np.linspace(0.9, lowest, 300)
    return official([0] * 299 + [1], [(1, 2, 3, 4)] * 300, scores)


def test_a_graph_that_has_ranked_all_classes_names_what_may_be_missing(capsys):
    """Its last score is above the threshold, so that there may be more of class 1."""
    detector = Constant(OFFICIAL, *ranked(0.3))
    for _ in range(2):
        (found,) = detector.detect(
            torch.zeros(1, 3, 32, 64), [(50, 100)], 300, Selection((1,), above=0.25)
        )
        assert found.labels.tolist() == [1]
    printed = capsys.readouterr().err
    assert printed.count("Warning") == 1
    assert "x.onnx returns the best 300 detections of all classes, and all have scores" in printed


@pytest.mark.parametrize(
    ("lowest", "max_det", "classes"), [(0.2, 300, (1,)), (0.3, 1, (1,)), (0.3, 300, None)]
)
def test_nothing_is_missing_below_the_threshold_or_above_max_det(lowest, max_det, classes, capsys):
    selection = Selection(classes, above=0.25)
    assert detect(OFFICIAL, *ranked(lowest), max_det=max_det, selection=selection)
    assert capsys.readouterr().err == ""
