"""Thresholds of prediction, against detections with known scores."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from rtdetr_cli.backends.torch import TorchDetector
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.core.detections import Detections
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.engine.session.thresholds import find_thresholds
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.calibration import Calibration

FOUND = Detections(
    np.zeros((4, 4)), np.array([0.8, 0.6, 0.5, 0.2], np.float32), np.array([0, 1, 0, 2])
)
CALIBRATION = Calibration(0.5, -1.0, (0.7, 0.55, 0.1), "a/data.yaml", "val", 5, 9)


@pytest.fixture
def detector(tiny_config):
    names = {0: "cat", 1: "dog", 2: "traffic light"}
    network = RTDETRNetwork(tiny_config, 3)
    return TorchDetector(network, names, Preprocessing((64, 64)), torch.device("cpu"))


def kept(detector, conf, **more):
    thresholds = find_thresholds(detector, PredictSettings(source="a", conf=conf, **more))
    return thresholds, thresholds.keep(FOUND).tolist()


def test_one_number_is_for_all_classes_and_scores_stay(detector):
    thresholds, keep = kept(detector, 0.5)
    assert keep == [True, True, False, False]
    assert thresholds.shown(FOUND) is FOUND


def test_by_class_the_others_keep_the_default(detector):
    """0.25 for the traffic light, whose score is 0.2; a class is a name or an index."""
    assert kept(detector, "cat:0.7,1:0.65")[1] == [True, False, False, False]
    assert kept(detector, "traffic light:0.1")[1] == [True, True, True, True]


def test_an_unknown_class_is_an_error(detector):
    with pytest.raises(UsageError, match=r"conf: dogg is neither a class .* did you mean dog"):
        kept(detector, "dogg:0.5")


def test_auto_takes_thresholds_and_scores_of_the_calibration(detector):
    detector.calibration = CALIBRATION
    thresholds, keep = kept(detector, "auto")
    assert keep == [True, True, False, True]
    odds = FOUND.scores / (1 - FOUND.scores)
    expected = 1 / (1 + np.exp(1 - np.log(odds) / 0.5))  # of the definition
    np.testing.assert_allclose(thresholds.shown(FOUND).scores, expected, rtol=1e-6)


def test_auto_without_a_calibration_says_how_to_make_one(detector):
    line = "`rtdetr val model=rtdetr-l.pt data=my.yaml calibrate=true`"
    with pytest.raises(UsageError, match=re.escape(line)):
        kept(detector, "auto")
    with pytest.raises(UsageError, match="then export them again"):
        kept(detector, "auto", model="a.onnx")


def test_auto_warns_of_settings_it_was_not_measured_with(detector, capsys):
    detector.calibration = CALIBRATION
    kept(detector, "auto", decoder_layers=3, imgsz=64)  # its own
    assert capsys.readouterr().err == ""
    kept(detector, "auto", decoder_layers=2, imgsz=96, augment=True)
    assert "without imgsz, decoder_layers, augment;" in capsys.readouterr().err
