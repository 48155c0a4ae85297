"""The grid, the Pareto front and the choice."""

from __future__ import annotations

import pytest

from rtdetr_cli.config.settings.tradeoff import TradeoffSettings
from rtdetr_cli.engine.tradeoffs.rows import Row, Setting, choose, front, make_grid, marked, refusal
from rtdetr_cli.nn.rtdetr import RTDETRNetwork


def row(ap: float, p50_ms: float, own: float = 0.5) -> Row:
    """A row whose difference is from an AP of `own`."""
    setting = Setting((320, 320), 3, int(1000 * p50_ms))
    return Row(setting, "a.pt", ap, ap, ap, ap - own, 0, 0, p50_ms, p50_ms)


ROWS = [row(0.50, 20), row(0.49, 12), row(0.30, 5), row(0.496, 15), row(0.29, 6), row(0.52, 40)]


def settings(**keys: object) -> TradeoffSettings:
    return TradeoffSettings(model="a.pt", data="my.yaml", **keys)


def test_the_front_is_what_nothing_beats_in_both_numbers():
    assert [(one.ap, one.p50_ms) for one in front(ROWS)] == [
        *((0.30, 5), (0.49, 12), (0.496, 15), (0.50, 20), (0.52, 40))
    ]
    # as fast, but worse; as good, but slower
    assert front([row(0.4, 5), row(0.3, 5), row(0.4, 6)]) == [row(0.4, 5)]


@pytest.mark.parametrize(
    ("limits", "chosen"),
    [
        ({}, (0.496, 15)),  # 0.4 points less than 0.5 is within 0.5 points, 1.0 is not
        ({"max_drop": 1.1}, (0.49, 12)),
        ({"max_drop": 0}, (0.50, 20)),
        ({"min_ap": 0.3}, (0.30, 5)),
        ({"max_ms": 12}, (0.49, 12)),
        ({"max_ms": 100}, (0.52, 40)),
        ({"max_ms": 12, "max_drop": 100}, (0.49, 12)),
        ({"min_ap": 0.3, "max_drop": 0.5}, (0.496, 15)),
        ({"max_ms": 4}, None),
        ({"max_ms": 12, "min_ap": 0.5}, None),
    ],
    ids=str,
)
def test_the_choice(limits, chosen):
    found = choose(ROWS, settings(**limits))
    assert (found and (found.ap, found.p50_ms)) == chosen


def test_limits_that_nothing_meets_are_named_with_what_there_is():
    sentence = str(refusal(ROWS, settings(max_ms=4, min_ap=0.4)))
    assert sentence == (
        "no setting meets min_ap=0.4 and max_ms=4: the fastest takes 5.0 ms with AP 0.3000, "
        "the best has AP 0.5200 in 40.0 ms"
    )


def test_rows_come_fastest_first_with_one_choice():
    found = marked(ROWS, settings())
    assert [one.p50_ms for one in found] == [5, 6, 12, 15, 20, 40]
    assert [one.is_best for one in found] == [True, False, True, True, True, True]
    assert [one.p50_ms for one in found if one.is_chosen] == [15]


def test_the_default_grid_is_around_the_own_setting(tiny_config):
    grid = make_grid(settings(), RTDETRNetwork(tiny_config, 2), (320, 640), (False, True))
    assert grid.sizes_hw == ((256, 480), (320, 640), (384, 800))  # 240 / 32 is rounded to even
    assert (grid.decoder_layers, grid.num_queries) == ((1, 2, 3), (6, 13, 20))
    assert grid.reference == Setting((320, 640), 3, 20)
    assert len(grid.settings) == 2 * 3 * 3 * 3
    assert len(set(grid.settings)) == len(grid.settings)


def test_a_small_image_has_no_size_below_the_stride(tiny_config):
    grid = make_grid(settings(), RTDETRNetwork(tiny_config, 2), (32, 32), (False,))
    assert grid.sizes_hw == ((32, 32),)


def test_lists_are_sorted_and_the_largest_is_the_reference_without_the_own_one(tiny_config):
    given = settings(imgsz=[96, 64, 96], decoder_layers=2, num_queries=(9, 5))
    grid = make_grid(given, RTDETRNetwork(tiny_config, 2), (640, 640), (False,))
    assert grid.sizes_hw == ((64, 64), (96, 96))
    assert (grid.decoder_layers, grid.num_queries) == ((2,), (5, 9))
    assert grid.reference == Setting((96, 96), 2, 9)


def test_the_reference_has_the_layers_and_queries_in_use(tiny_config):
    network = RTDETRNetwork(tiny_config, 2)
    network.set_speed(decoder_layers=2, num_queries=10)  # as R50-m, which has 6 and uses 3
    grid = make_grid(settings(), network, (64, 64), (False,))
    assert (grid.decoder_layers, grid.num_queries) == ((1, 2, 3), (3, 6, 10))
    assert grid.reference == Setting((64, 64), 2, 10)


def test_keys_are_those_of_predict():
    square = Setting((320, 320), 2, 100)
    assert square.keys == ["imgsz=320", "decoder_layers=2", "num_queries=100"]
    wide = Setting((320, 640), 2, 100, half=True, backend="openvino")
    assert wide.keys[0] == "imgsz=320,640"
    assert wide.keys[3:] == ["half=true", "backend=openvino"]
    assert (square.runtime_words, wide.runtime_words) == ([], ["openvino", "half"])
    assert (square.imgsz, wide.imgsz) == (320, (320, 640))


def test_a_row_as_values_has_its_setting_first():
    values = row(0.5, 20).to_dict()
    assert list(values)[:3] == ["imgsz", "decoder_layers", "num_queries"]
    assert values["imgsz"] == "320"
    assert (values["ap"], values["p50_ms"], values["file"]) == (0.5, 20, "a.pt")
