"""The PyTorch detector: building a network, choosing a device, descriptions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rtdetr_cli.backends.load import load_detector, preprocessing_for
from rtdetr_cli.backends.torch import build_network, choose_device, torch_detector
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.errors import BackendError, WeightsError
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint

NAMES = {0: "cat", 1: "dog"}


def test_a_checkpoint_gives_a_detector_with_its_names_and_preprocessing(tiny_config):
    torch.manual_seed(0)
    weights = RTDETRNetwork(tiny_config, 2).state_dict()
    checkpoint = Checkpoint(tiny_config, NAMES, weights, Preprocessing((64, 96), False))
    detector = torch_detector(checkpoint, "cpu", decoder_layers=2, num_queries=7)
    assert (detector.names, detector.preprocessing) == (NAMES, Preprocessing((64, 96), False))
    assert detector.description == f"tiny, PyTorch {torch.__version__}, cpu"
    assert (detector.network.decoder.eval_layers, detector.network.decoder.num_queries) == (2, 7)
    (found,) = detector.detect(torch.rand(1, 3, 64, 96), [(10, 20)], max_det=3)
    assert len(found) == 3
    assert preprocessing_for(detector, 128) == Preprocessing((128, 128), False)


def test_weights_are_loaded_strictly(tiny_config):
    weights = RTDETRNetwork(tiny_config, 2).state_dict()
    network = build_network(tiny_config, 2, weights)
    for name, value in network.state_dict().items():
        assert torch.equal(value, weights[name])
    del weights["decoder.enc_score_head.weight"]
    with pytest.raises(WeightsError, match=r"decoder\.enc_score_head\.weight"):
        build_network(tiny_config, 2, weights)


def test_an_architecture_gives_random_weights_with_a_warning(capsys):
    detector = load_detector("rtdetr-n.yaml", "cpu", decoder_layers=1)
    assert detector.network.decoder.eval_layers == 1
    expected = "Warning: rtdetr-n.yaml is an architecture without weights: the detections will be"
    assert expected in capsys.readouterr().err


def test_devices_are_parsed():
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(BackendError, match="device=gpu is not a device; try cpu, mps, cuda or 0"):
        choose_device("gpu")
    count = torch.cuda.device_count()
    with pytest.raises(BackendError, match=f"PyTorch sees {count} CUDA devices"):
        choose_device(str(count))


@pytest.mark.parametrize("half", [False, True])
def test_detections_at_every_speed_are_those_of_each_speed_alone(tiny_config, set_cpu, half):
    """Bit for bit: every setting computes the same operations on the same shapes."""
    set_cpu("avx512_bf16")
    torch.manual_seed(0)
    weights = RTDETRNetwork(tiny_config, 2).state_dict()
    checkpoint = Checkpoint(tiny_config, NAMES, weights)
    images, sizes_hw = torch.rand(2, 3, 64, 96), [(10, 20), (64, 96)]
    detector = torch_detector(checkpoint, "cpu", half=half)
    found = detector.detect_at_every_speed(images, sizes_hw, (4, 20), max_det=30)
    assert found.keys() == {(layers, queries) for layers in (1, 2, 3) for queries in (4, 20)}
    for (layers, queries), together in found.items():
        detector.set_speed(layers, queries)
        alone = detector.detect(images, sizes_hw, max_det=30)
        for one, other in zip(together, alone, strict=True):
            assert len(one) == min(2 * queries, 30)
            assert np.array_equal(one.boxes_xyxy, other.boxes_xyxy)
            assert np.array_equal(one.scores, other.scores)
            assert np.array_equal(one.labels, other.labels)
