"""16-bit inference: supported devices, layers that stay float32, drift of detections."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rtdetr_cli.backends import torch as torch_backend
from rtdetr_cli.backends.autocast import half_dtype, keep_exact
from rtdetr_cli.backends.load import load_detector
from rtdetr_cli.backends.torch import TorchDetector
from rtdetr_cli.config.model import ModelConfig, Preprocessing
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.engine.exporting.images import find_images
from rtdetr_cli.engine.exporting.verdict import LIMITS, Agreement, compare
from rtdetr_cli.nn.rtdetr import RTDETRNetwork, fuse

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def any_cpu(set_cpu):
    """Without hardware support bfloat16 is slow here but has the same results."""
    set_cpu("avx2", "avx512_bf16")


def test_half_is_float16_on_cuda_and_bfloat16_on_a_cpu():
    assert half_dtype(torch.device("cuda", 1)) is torch.float16
    assert half_dtype(CPU) is torch.bfloat16


def detector(config: ModelConfig, half: bool, network: RTDETRNetwork | None = None):
    torch.manual_seed(0)
    network = network or RTDETRNetwork(config, 3)
    return TorchDetector(network, {0: "a", 1: "b", 2: "c"}, Preprocessing(), CPU, half=half)


def test_half_is_rejected_on_a_device_without_instructions(set_cpu, tiny_config):
    with pytest.raises(BackendError, match="not device=mps"):
        half_dtype(torch.device("mps"))
    set_cpu("avx2")
    with pytest.raises(BackendError, match="half=true: this CPU has no instructions for bfloat16"):
        detector(tiny_config, half=True)


def dtypes_of(network: RTDETRNetwork) -> dict[str, torch.dtype]:
    """Output dtype of each convolution and linear layer under autocast."""
    found = {}
    for name, part in network.named_modules():
        if isinstance(part, torch.nn.Conv2d | torch.nn.Linear):
            part.register_forward_hook(
                lambda _, __, out, name=name: found.update({name: out.dtype})
            )
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        output = network(torch.rand(1, 3, 64, 64))
    return {**found, "logits": output.pred_logits.dtype, "boxes": output.pred_boxes.dtype}


def test_only_first_convolution_heads_and_boxes_stay_float32(tiny_config, tiny_presnet_config):
    for config in (tiny_config, tiny_presnet_config):
        network = fuse(RTDETRNetwork(config, 3).eval())
        keep_exact(network)
        dtypes = dtypes_of(network)
        exact = {name for name, dtype in dtypes.items() if dtype is torch.float32}
        first = next(iter(dtypes))
        assert first.startswith("backbone.")
        heads = {name for name in dtypes if "score_head" in name or "bbox_head" in name}
        assert len(heads) > 4
        assert exact == {first, "logits", "boxes", *heads}


def test_half_changes_scores_slightly_and_is_in_the_description(tiny_config):
    images = torch.rand(2, 3, 64, 64)
    exact = detector(tiny_config, half=False)
    half = detector(tiny_config, half=True, network=exact.network)
    assert half.description.endswith("cpu, bf16")
    ours, theirs = (one.detect(images, [(64, 64)] * 2)[0] for one in (exact, half))
    assert theirs.boxes_xyxy.dtype == theirs.scores.dtype == np.float32
    difference = np.abs(ours.scores - theirs.scores).max()
    assert 0 < difference < 0.01


def agreement_of_half(shared_data) -> Agreement:
    """On 8 real images, with trained weights."""
    exact = load_detector(str(shared_data / "weights" / "ultralytics_n_bccd.pt"), "cpu")
    half = TorchDetector(exact.network, exact.names, exact.preprocessing, CPU, half=True)
    images = find_images(str(shared_data / "bccd" / "images" / "val"))
    return compare(exact, half, images, LIMITS["fp16"])


def test_half_of_a_trained_network_passes_the_fp16_limits(shared_data):
    found = agreement_of_half(shared_data)
    assert found.passes
    assert found.detections > 300
    assert found.box_drift_px.p99 < 0.6


def test_half_with_the_first_convolution_in_bfloat16_fails_the_limits(shared_data, monkeypatch):
    monkeypatch.setattr(torch_backend, "keep_exact", lambda network: None)
    found = agreement_of_half(shared_data)
    assert not found.passes
    assert found.box_drift_px.p99 > 1.5
