"""The confusion matrix: rows predicted, columns true, the background last."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from rtdetr_cli.evaluation.confusion import ConfusionMatrix

COUNTS = [[3, 1, 2], [0, 4, 1], [5, 1, 0]]


def confusion(*names: str) -> ConfusionMatrix:
    return ConfusionMatrix(np.array(COUNTS), dict(enumerate(names or ("cat", "dog"))))


def test_the_summary_equals_that_of_ultralytics():
    """Recorded from Ultralytics 8.4.190, run as a black box on the same counts and names."""
    assert confusion().summary() == [
        {"Predicted": "cat", "cat": 3, "dog": 1, "background": 2},
        {"Predicted": "dog", "cat": 0, "dog": 4, "background": 1},
        {"Predicted": "background", "cat": 5, "dog": 1, "background": 0},
    ]
    assert confusion().summary(normalize=True) == [
        {"Predicted": "cat", "cat": 0.375, "dog": 0.16667, "background": 0.66667},
        {"Predicted": "dog", "cat": 0.0, "dog": 0.66667, "background": 0.33333},
        {"Predicted": "background", "cat": 0.625, "dog": 0.16667, "background": 0.0},
    ]
    right, wrong = confusion().tp_fp()
    assert (right.tolist(), wrong.tolist()) == ([3, 4], [3, 1])


def test_it_is_an_array_a_table_and_prints(capsys):
    matrix = confusion()
    assert np.asarray(matrix).tolist() == matrix.matrix.tolist() == COUNTS
    assert np.array(matrix, dtype=float).dtype == float
    copied = np.array(matrix)
    copied[0, 0] = 9
    assert matrix.matrix[0, 0] == 3
    assert (matrix.nc, matrix.names, matrix.task) == (2, {0: "cat", 1: "dog"}, "detect")
    assert matrix.to_csv().splitlines()[1] == "cat,3,1,2"
    assert json.loads(matrix.to_json()) == matrix.summary()
    matrix.print()
    assert capsys.readouterr().out.splitlines() == ["3 1 2", "0 4 1", "5 1 0"]


def test_a_true_class_without_boxes_has_shares_of_zero():
    matrix = ConfusionMatrix(np.zeros((2, 2), dtype=np.int64), {0: "cat"})
    assert matrix.shares().tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("names", [("cell", "cell"), ("background", "Predicted")])
def test_no_column_is_lost_where_names_repeat(names):
    rows = confusion(*names).summary()
    assert [list(row.values())[1:] for row in rows] == COUNTS


def test_plot_writes_into_a_folder(tmp_path):
    for normalize, name in ((True, "confusion_matrix_normalized"), (False, "confusion_matrix")):
        path = confusion().plot(normalize=normalize, save_dir=tmp_path)
        assert path == tmp_path / f"{name}.png"
        assert cv2.imread(str(path)).std() > 5


def test_the_drawing_has_the_orientation_of_the_matrix(monkeypatch, tmp_path):
    drawn = []
    keep = lambda _path, figure: drawn.append(figure)  # noqa: E731
    monkeypatch.setattr("rtdetr_cli.evaluation.confusion.save_figure", keep)
    confusion().plot(normalize=False)
    (axes, _) = drawn[0].axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("True class", "Predicted class")
    numbers = {text.get_position(): text.get_text() for text in axes.texts}
    assert numbers[0, 2] == "5"  # missed cats: true cat (x), predicted background (y)
    assert numbers[2, 0] == "2"  # false cats


def test_pairs_that_are_mixed_up_most_come_first_without_the_background():
    counts = [[9, 1, 4, 50], [3, 9, 0, 50], [4, 7, 9, 50], [50, 50, 50, 0]]
    matrix = ConfusionMatrix(np.array(counts), {0: "cat", 1: "dog", 2: "cow"})
    expected = [("dog", "cow", 7), ("cow", "cat", 4), ("cat", "cow", 4), ("cat", "dog", 3)]
    assert matrix.most_mixed(4) == expected
    assert len(matrix.most_mixed(99)) == 5
    assert confusion().most_mixed(9) == [("dog", "cat", 1)]
