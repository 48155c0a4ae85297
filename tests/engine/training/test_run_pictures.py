"""The images of a training are drawn whatever its classes are called."""

from pathlib import Path

import numpy as np
from PIL import Image

from rtdetr_cli.data.dataset import DetectionDataset, LabelledBox, make_record
from rtdetr_cli.engine.training.run_pictures import draw_labels

ODD = ["$x_{1$", "new\nline\t", "\x1b[31mred\x1b]0;t\x07", "\u202e", "_", "[bold]", "x" * 1000, ""]


def test_class_names_are_no_formulas_and_no_control_codes(tmp_path: Path) -> None:
    boxes = [LabelledBox(label, [0, 0, 5 + label, 5]) for label in range(len(ODD))]
    record = make_record(1, tmp_path / "a.png", (40, 60), boxes)
    names = dict(enumerate(ODD))
    draw_labels(tmp_path, DetectionDataset(names, list(names), [record]))
    assert np.asarray(Image.open(tmp_path / "labels.jpg")).std() > 5
