"""One pass per image and size has the detections of every setting run alone."""

from __future__ import annotations

import numpy as np
import pytest

from rtdetr_cli.backends.load import load_detector
from rtdetr_cli.config.settings.val import ValSettings
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.engine.tradeoffs import accuracy
from rtdetr_cli.engine.tradeoffs.accuracy import ap_of_file, ap_of_grid
from rtdetr_cli.engine.tradeoffs.rows import make_grid
from rtdetr_cli.engine.val import detect, validate
from rtdetr_cli.evaluation.coco import CocoEvaluator


@pytest.fixture
def dataset(small):
    return open_split(load_data(small.data), "val")


def keys_of(setting):
    return {
        "imgsz": setting.imgsz,
        "decoder_layers": setting.decoder_layers,
        "num_queries": setting.num_queries,
    }


@pytest.fixture
def opened(small):
    detector = load_detector(small.model, "cpu")
    return detector, make_grid(small, detector.network, (64, 64), (False,))


def test_detections_are_those_of_val_bit_for_bit(opened, small, dataset, monkeypatch):
    seen: list[CocoEvaluator] = []
    monkeypatch.setattr(accuracy, "resampled_ap", lambda evaluator, *_: seen.append(evaluator))
    found = [one for one, _ in ap_of_grid(opened[0], False, opened[1], dataset, small)]
    assert found == opened[1].settings
    assert len(found) == 2 * 3 * 2
    for setting, evaluator in zip(found, seen, strict=True):
        alone = ValSettings(model=small.model, device="cpu", batch=3, workers=0, **keys_of(setting))
        expected = detect(alone, dataset).found
        assert expected.keys() == evaluator.found.keys()
        for image_id, rows in expected.items():
            assert len(rows) == 2 * setting.num_queries
            assert np.array_equal(rows, evaluator.found[image_id])


def test_ap_is_that_of_val(opened, small, dataset):
    for setting, values in ap_of_grid(opened[0], False, opened[1], dataset, small):
        alone = ValSettings(
            model=small.model,
            data=small.data,
            device="cpu",
            workers=0,
            batch=3,
            plots=False,
            **keys_of(setting),
        )
        assert values.shape == (1 + len(dataset) + small.resamples,)
        assert values[0] == pytest.approx(validate(alone).box.map, abs=1e-12)


def test_the_backbone_runs_once_per_batch_and_size(opened, small, dataset):
    detector, grid = opened
    sizes = []
    detector._runner.backbone.register_forward_pre_hook(
        lambda _, inputs: sizes.append(tuple(inputs[0].shape))
    )
    assert len(dict(ap_of_grid(detector, False, grid, dataset, small))) == 12
    assert sizes == [(n, 3, side, side) for side in (64, 96) for n in (3, 1)]  # 4 images


def test_a_file_has_the_ap_of_its_setting(opened, small, dataset):
    detector, grid = opened
    by_setting = dict(ap_of_grid(detector, False, grid, dataset, small))
    setting = grid.settings[1]
    detector.set_speed(setting.decoder_layers, setting.num_queries)
    alone = ap_of_file(detector, setting.size_hw, dataset, small)
    assert np.array_equal(alone, by_setting[setting], equal_nan=True)
