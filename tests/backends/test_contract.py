"""Third-party graphs with constant outputs, through the ONNX detector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from rtdetr_cli.backends.load import load_detector, preprocessing_for
from rtdetr_cli.backends.onnx.detector import OnnxDetector
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.errors import UsageError, WeightsError

BOXES = np.array([[0.5, 0.5, 0.2, 0.4], [0.25, 0.75, 0.1, 0.1], [0.1, 0.1, 0.2, 0.2]], np.float32)
"""cxcywh of three queries."""
SCORES = np.array([[0.01, 0.9, 0.02], [0.7, 0.6, 0.03], [0.05, 0.04, 0.2]], np.float32)
"""Of three classes; the second query has two detections."""
BEST = [(0.9, 1, 0), (0.7, 0, 1), (0.6, 1, 1), (0.2, 2, 2), (0.05, 0, 2)]
"""Score, class and query of the five best pairs."""
SIX = np.array([[*BOXES[query], score, label] for score, label, query in BEST], np.float32)
SIDES = (64, 32)


def logit(scores: np.ndarray) -> np.ndarray:
    return np.log(scores / (1 - scores))


def save(
    path: Path,
    rows: dict[str, np.ndarray],
    image: str = "images",
    shape: tuple[object, ...] = ("batch", 3, *SIDES),
    columns: object = None,
    **notes: str,
) -> Path:
    """A graph whose outputs do not depend on the images."""
    nodes, values, outputs = [], [], []
    zeros = [
        helper.make_node("ReduceMean", [image], ["means"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["means", "zero"], ["flat"]),
        helper.make_node("Unsqueeze", ["flat", "places"], ["zeros"]),  # (B, 1, 1)
    ]
    values.append(numpy_helper.from_array(np.array(0, np.float32), "zero"))
    values.append(numpy_helper.from_array(np.array([1, 2]), "places"))
    for name, array in rows.items():
        values.append(numpy_helper.from_array(array[None].astype(np.float32), f"{name}_value"))
        nodes.append(helper.make_node("Add", [f"{name}_value", "zeros"], [name]))
        sides = [shape[0], array.shape[0], columns or array.shape[1]]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, sides))
    images = helper.make_tensor_value_info(image, TensorProto.FLOAT, list(shape))
    graph = helper.make_graph([*zeros, *nodes], "foreign", [images], outputs, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for key, value in notes.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path


def check_best(detector: OnnxDetector, count: int = 5) -> None:
    """The five best pairs of two images of different shapes, in pixels."""
    sizes_hw = [(100, 200), (40, 20)]
    for found, (height, width) in zip(
        detector.detect(torch.rand(2, 3, *SIDES), sizes_hw, max_det=5), sizes_hw, strict=True
    ):
        assert found.labels.tolist()[:count] == [label for _, label, _ in BEST[:count]]
        assert found.scores.tolist()[:count] == pytest.approx(
            [score for score, _, _ in BEST[:count]], abs=1e-6
        )
        cx, cy, w, h = BOXES[0].tolist()
        expected = [(cx - w / 2) * width, (cy - h / 2) * height]
        expected += [(cx + w / 2) * width, (cy + h / 2) * height]
        assert found.boxes_xyxy[0].tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_hugging_face_has_logits_and_boxes(tmp_path, batch):
    outputs = {"logits": logit(SCORES), "pred_boxes": BOXES, "last_hidden_state": BOXES}
    path = save(tmp_path / "x.onnx", outputs, "pixel_values", (batch, 3, *SIDES))
    detector = OnnxDetector(path, "cpu")
    check_best(detector)
    assert detector.preprocessing == Preprocessing(SIDES, antialias=True)
    assert detector.names == {0: "0", 1: "1", 2: "2"}
    assert "Hugging Face, class names: numbers (the file has none)" in detector.description


@pytest.mark.parametrize("rows", [np.hstack((BOXES, SCORES)), SIX], ids=["4 + K", "six columns"])
def test_ultralytics_has_rows(tmp_path, rows):
    names = "{0: 'cat', 1: 'dog', 2: \"bird's\"}"
    path = save(tmp_path / "yolo.onnx", {"output0": rows}, names=names, head="RTDETRDecoder")
    detector = OnnxDetector(path, "cpu")
    check_best(detector)
    assert detector.preprocessing == Preprocessing(SIDES, antialias=False)  # OpenCV's, stretched
    assert detector.names == {0: "cat", 1: "dog", 2: "bird's"}
    assert "Ultralytics, class names: from the file" in detector.description


def test_six_columns_are_two_classes_if_the_last_is_not_a_whole_number(tmp_path):
    rows = np.hstack((BOXES, SCORES[:, :2]))
    two = OnnxDetector(save(tmp_path / "two.onnx", {"output0": rows}, names="['a', 'b']"), "cpu")
    assert two.names == {0: "a", 1: "b"}
    check_best(two, count=3)
    six = SIX[SIX[:, 5] < 2]
    path = save(tmp_path / "six.onnx", {"output0": six}, names="['a', 'b']")
    check_best(OnnxDetector(path, "cpu"), count=3)


def test_eighty_classes_without_names_are_those_of_coco(tmp_path):
    scores = np.full((3, 80), 0.01, np.float32)
    scores[0, 5] = 0.9
    for name, image, outputs in (
        ("u", "images", {"output0": np.hstack((BOXES, scores))}),
        ("h", "pixel_values", {"logits": logit(scores), "pred_boxes": BOXES}),
    ):
        detector = OnnxDetector(save(tmp_path / f"{name}.onnx", outputs, image), "cpu")
        assert "COCO's (the file has none)" in detector.description
        found = detector.detect(torch.rand(1, 3, *SIDES), [(10, 10)])[0]
        assert detector.names[int(found.labels[0])] == "bus"


@pytest.mark.parametrize("names", ["{0: 'a'}", "{1: 'a', 2: 'b', 3: 'c'}", "__import__('os')", "{"])
def test_names_that_do_not_match_are_ignored(tmp_path, names):
    rows = np.hstack((BOXES, SCORES))
    path = save(tmp_path / "x.onnx", {"output0": rows}, names=names)
    assert OnnxDetector(path, "cpu").names == {0: "0", 1: "1", 2: "2"}


def test_a_graph_of_free_size_runs_at_the_requested_size(tmp_path):
    free = ("batch", 3, "height", "width")
    notes = {"head": "RTDETRDecoder", "imgsz": "[320, 256]", "names": "['a', 'b', 'c']"}
    path = save(tmp_path / "x.onnx", {"output0": SIX}, shape=free, columns="anchors", **notes)
    detector = load_detector(str(path), "cpu")
    assert detector.preprocessing.size_hw == (320, 256)
    assert preprocessing_for(detector, 96) == Preprocessing((96, 96), False)
    assert len(detector.detect(torch.rand(1, 3, 96, 96), [(9, 9)])[0]) == 5
    outputs = {"logits": logit(SCORES), "pred_boxes": BOXES}
    path = save(tmp_path / "y.onnx", outputs, "pixel_values", ("b", "c", "h", "w"))
    assert load_detector(str(path), "cpu").preprocessing.size_hw == (640, 640)
    fixed = load_detector(str(save(tmp_path / "z.onnx", {"output0": SIX})), "cpu")
    with pytest.raises(UsageError, match="takes 64x32 only"):
        preprocessing_for(fixed, 96)


PIXELS = SIX * np.array([640, 640, 640, 640, 1, 1], np.float32)


def test_boxes_in_pixels_are_rejected_at_inference(tmp_path):
    detector = OnnxDetector(save(tmp_path / "x.onnx", {"output0": PIXELS}), "cpu")
    with pytest.raises(WeightsError, match="boxes are in pixels, as in YOLO's"):
        detector.detect(torch.rand(1, 3, *SIDES), [(9, 9)])


YOLO_ANCHORS = 8 * 4 + 4 * 2 + 2 * 1


@pytest.mark.parametrize(
    ("outputs", "image", "notes"),
    [
        ({"output0": SIX}, "images", {"head": "Detect"}),
        ({"output0": np.zeros((84, YOLO_ANCHORS), np.float32)}, "images", {}),
        ({"output0": BOXES}, "images", {}),
        ({"logits": SCORES, "boxes": BOXES}, "pixel_values", {}),
        ({"logits": SCORES, "pred_boxes": SCORES[:, :2]}, "pixel_values", {}),
        ({"dets": BOXES, "labels": SCORES}, "input", {}),
    ],
)
def test_an_unknown_contract_is_rejected_with_inputs_and_outputs(tmp_path, outputs, image, notes):
    path = save(tmp_path / "other.onnx", outputs, image, **notes)
    with pytest.raises(
        WeightsError, match=rf"other\.onnx has inputs {image} tensor\(float\)"
    ) as caught:
        OnnxDetector(path, "cpu")
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert all(f"{name} tensor(float)['batch', " in sentence for name in outputs)
