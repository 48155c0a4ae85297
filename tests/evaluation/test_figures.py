"""Helpers of all figures."""

from __future__ import annotations

import cv2
import pytest

from rtdetr_cli.evaluation.figures import canvas, save_figure, short_name, write_title


@pytest.mark.parametrize(
    ("name", "short"), [("cat", "cat"), ("c" * 24, "c" * 24), ("c" * 25, "c" * 23 + "…")]
)
def test_long_names_are_shortened(name, short):
    assert short_name(name) == short


def test_control_codes_are_not_drawn():
    assert "\x1b" not in short_name("\x1b[31m")


def test_a_figure_has_the_size_of_its_canvas(tmp_path):
    figure, axes = canvas(4, 3)
    write_title(axes, "細胞", "a script that the font lacks is no warning")
    save_figure(tmp_path / "figure.png", figure, dpi=50)
    assert cv2.imread(str(tmp_path / "figure.png")).shape == (150, 200, 3)
