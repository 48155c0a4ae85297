"""labels.jpg is drawn from all boxes, whatever the classes are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtdetr_cli.data.dataset import DetectionDataset, LabelledBox, make_record
from rtdetr_cli.engine.training.label_statistics import draw_labels, plot_labels

ODD = ["$x_{1$", "new\nline\t", "\x1b[31mred\x1b]0;t\x07", "\u202e", "_", "[bold]", "x" * 1000, ""]


def make_dataset(names: list[str], *images: list[LabelledBox]) -> DetectionDataset:
    """Images of 100x200 pixels."""
    records = [
        make_record(number, Path(f"{number}.png"), (100, 200), boxes)
        for number, boxes in enumerate(images)
    ]
    return DetectionDataset(dict(enumerate(names)), list(range(len(names))), records)


def panels(dataset):
    return {axes.get_title(loc="left"): axes for axes in draw_labels(dataset).axes}


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_class_names_are_no_formulas_and_no_control_codes(tmp_path: Path) -> None:
    boxes = [LabelledBox(label, [0, 0, 5 + label, 5]) for label in range(len(ODD))]
    plot_labels(tmp_path / "labels.jpg", make_dataset(ODD, boxes))
    assert np.asarray(Image.open(tmp_path / "labels.jpg")).std() > 5


def test_counts_are_on_the_bars_and_in_the_title():
    boxes = [LabelledBox(0, [0, 0, 10, 10])] * 3 + [LabelledBox(2, [0, 0, 10, 10])]
    found = panels(make_dataset(["a", "b", "c"], boxes, []))
    axes = found["4 boxes in 1 of 2 images; 1 of 3 classes without boxes"]
    assert texts(axes) == ["3", "0", "1"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    assert axes.get_yscale() == "linear"


def test_rare_classes_show_beside_frequent_ones():
    boxes = [LabelledBox(0, [0, 0, 10, 10])] * 51 + [LabelledBox(1, [0, 0, 10, 10])]
    axes = draw_labels(make_dataset(["a", "b", "c"], boxes)).axes[0]
    assert axes.get_yscale() == "log"
    assert texts(axes) == ["51", "1", "0"]
    assert [bar.get_height() for bar in axes.patches] == [51, 1, 0.5]  # the axis begins at 0.5


def test_of_many_classes_the_most_frequent_have_bars():
    boxes = [LabelledBox(label, [0, 0, 9, 9]) for label in [129, 129, 7]]
    axes = draw_labels(make_dataset([str(i) for i in range(130)], boxes)).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()][:3] == ["129", "7", "0"]
    assert texts(axes)[:3] == ["2", "1", "0"]
    assert len(axes.patches) == 100
    assert axes.get_title(loc="left").endswith("the 100 most frequent of 130 classes")


@pytest.mark.parametrize(("title", "x", "y"), [("Centres", 0.8, 0.3), ("Sizes", 0.1, 0.4)])
def test_centres_and_sizes_are_fractions_of_the_image(title, x, y):
    found = panels(make_dataset(["a"], [LabelledBox(0, [150, 10, 170, 50])]))
    axes = found[f"{title}, boxes per cell"]
    cells = axes.collections[0]
    counts = np.ma.filled(cells.get_array(), 0)
    assert counts.sum() == 1
    row, column = (place[0] + 0.5 for place in np.nonzero(counts))
    assert (column / counts.shape[1], row / counts.shape[0]) == pytest.approx((x, y), abs=0.051)
    assert axes.yaxis_inverted() == (title == "Centres")  # as in the image


def test_outlines_have_the_size_of_the_boxes():
    axes = panels(make_dataset(["a"], [LabelledBox(0, [150, 10, 170, 50])]))["Outlines of 1 boxes"]
    corners = axes.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose(np.ptp(corners, axis=0), [0.1, 0.4], atol=1e-6)


def test_a_split_without_boxes_is_drawn():
    titles = list(panels(make_dataset(["a"], [])))
    assert titles[:2] == ["0 boxes in 0 of 1 images; 1 of 1 classes without boxes",
                          "Outlines of 0 boxes"]  # fmt: skip
