"""Box accuracy under the names that Ultralytics uses."""

from __future__ import annotations

import math

import numpy as np
import pytest

NAMES = """all_ap ap ap50 ap_class_index class_result curves curves_results f1 f1_curve fitness map
    map50 map75 maps mean_results mp mr nc p p_curve prec_values px r r_curve"""


@pytest.fixture
def box(make_split):
    """Two cats of which one is found exactly; dogs, a class without ground truth."""
    boxes = [[10, 10, 40, 40, 0], [70, 10, 40, 40, 0]]
    return make_split(boxes, [[10, 10, 40, 40, 0.9, 0]]).evaluator().compute().box


def test_box_has_the_names_of_ultralytics(box):
    """The names: dir() of a Metric of Ultralytics 8.4.190, run as a black box; no image_metrics."""
    assert [name for name in NAMES.split() if not hasattr(box, name)] == []
    assert box.map == box.map50 == box.map75 == box.fitness() == pytest.approx(51 / 101)
    assert box.ap_class_index.tolist() == [0]
    assert (box.p.tolist(), box.r.tolist()) == ([1.0], [0.5])
    assert box.f1.tolist() == pytest.approx([2 / 3])
    assert (box.mp, box.mr, box.nc) == (1.0, 0.5, 2)
    assert box.ap.tolist() == pytest.approx([51 / 101]) == box.ap50.tolist()
    np.testing.assert_allclose(box.all_ap, np.full((1, 10), 51 / 101))
    assert box.mean_results() == [1.0, 0.5, box.map50, box.map]
    assert box.class_result(0) == (1.0, 0.5, box.ap50[0], box.ap[0])


def test_a_class_without_boxes_has_the_mean_in_maps_and_no_number_of_its_own(box):
    assert box.maps.tolist() == pytest.approx([51 / 101, 51 / 101])
    assert box.maps.mean() == pytest.approx(box.map)
    assert box.ap_per_class[0] == pytest.approx(51 / 101)
    assert math.isnan(box.ap_per_class[1])


def test_curves_have_a_row_per_class_present_over_a_common_x(box):
    for x, y, *_ in box.curves_results:
        assert x is box.px
        assert y.shape == (1, len(box.px)) == (1, 1001)
    at = {confidence: int(np.searchsorted(box.px, confidence)) for confidence in (0.5, 0.95)}
    assert (box.r_curve[0, at[0.5]], box.r_curve[0, at[0.95]]) == (0.5, 0.0)
    assert (box.p_curve[0, at[0.5]], box.f1_curve[0, at[0.95]]) == (1.0, 0.0)
    assert box.prec_values[0, 400] == pytest.approx(1.0)  # recall 0.4, of 0.5 reached
    assert box.prec_values[0, 600] == 0.0
