"""The images of a run folder."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

from rtdetr_cli.core.errors import StorageError
from rtdetr_cli.evaluation.calibration import Reliability
from rtdetr_cli.evaluation.report import save_plots, save_reliability, save_tradeoff

FILES = [
    "BoxPR_curve.png",
    "BoxF1_curve.png",
    "BoxP_curve.png",
    "BoxR_curve.png",
    "confusion_matrix.png",
    "confusion_matrix_normalized.png",
]
BOXES = [[10, 10, 40, 40, 0], [70, 10, 40, 40, 1]]
FOUND = [[10, 10, 40, 40, 0.9, 0], [70, 10, 40, 40, 0.8, 0], [70, 10, 40, 40, 0.3, 1]]


@pytest.mark.parametrize("boxes", [BOXES, []], ids=["two classes", "no ground truth"])
def test_six_images_are_written_whatever_the_classes_are_called(boxes, make_split, tmp_path):
    """Formulas, control codes, leading underscores, foreign scripts, length: all are drawn."""
    split = make_split(boxes, FOUND)
    split.ground_truth["categories"][0]["name"] = "_$x_1 細胞 " + 40 * "long "
    split.ground_truth["categories"][1]["name"] = "$\x1b[31m\n\0"
    metrics = split.evaluator().compute()
    assert [path.name for path in save_plots(tmp_path, metrics)] == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    for name in FILES:
        image = cv2.imread(str(tmp_path / name))
        assert min(image.shape[:2]) >= 600
        assert image.std() > 5
    assert "matplotlib.pyplot" not in sys.modules


def test_each_format_of_a_benchmark_is_a_point(tmp_path):
    drawn = []
    for count in (1, 3):
        points = [("onnx-half", 100.0 * n, 0.5 / n) for n in range(1, count + 1)]
        save_tradeoff(tmp_path / "benchmark.png", points, "AP")
        drawn.append(cv2.imread(str(tmp_path / "benchmark.png")).astype(int))
    blue = [(image[..., 0] > image[..., 2] + 100).sum() for image in drawn]
    assert blue[1] == pytest.approx(3 * blue[0], rel=0.2)


def test_reliability_has_a_bar_for_each_bin_with_hits(tmp_path):
    drawn = []
    for hits in ([True, False], [True, True]):
        given = Reliability(np.array([0.9, 0.6]), np.array(hits), np.array([1, 1]))
        save_reliability(tmp_path / "reliability.png", given)
        drawn.append(cv2.imread(str(tmp_path / "reliability.png")).astype(int))
    tint = [(abs(image - (0xF5, 0xD2, 0xC7)).max(axis=2) < 5).sum() for image in drawn]
    assert tint[1] == pytest.approx(2 * tint[0], rel=0.1)


def test_reliability_without_detections_says_so(tmp_path):
    nothing = Reliability(np.zeros(0), np.zeros(0, bool), np.zeros(0, int))
    save_reliability(tmp_path / "reliability.png", nothing)
    assert cv2.imread(str(tmp_path / "reliability.png")).std() > 5


def test_an_unwritable_folder_is_a_one_line_error(make_split, tmp_path, monkeypatch):
    metrics = make_split(BOXES, FOUND).evaluator().compute()
    monkeypatch.setattr("pathlib.Path.mkdir", _no_permission)
    with pytest.raises(StorageError, match="permission denied"):
        save_plots(tmp_path / "run", metrics)


def _no_permission(*_args, **_kwargs):
    raise PermissionError(13, "Permission denied")
