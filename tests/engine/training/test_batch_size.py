"""`batch=-1`: the arithmetic, the heaviest batch, and the message without CUDA."""

from __future__ import annotations

import pytest
import torch

from rtdetr_cli.cli.main import run
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.engine.training.batch_size import Measured, copied_state, full_batch, largest_batch
from rtdetr_cli.engine.training.step import train_step
from rtdetr_cli.loss.criterion import Criterion
from rtdetr_cli.nn.denoising import DenoisingConfig
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

GB = 10**9


@pytest.mark.parametrize(
    ("free", "devices", "most", "expected"),
    [
        # 1 GB is fixed and each image takes 2: 0.8 x 24 - 1 = 18.2 holds 9 of them.
        (24 * GB, 1, 1000, 9),
        (24 * GB, 4, 1000, 36),
        (24 * GB, 1, 5, 5),
        (24 * GB, 4, 10, 8),
        (24 * GB, 4, 3, 4),
        (3.75 * GB, 1, 1000, 1),
    ],
)
def test_the_batch_is_extrapolated_from_two_steps_and_rounded_down(free, devices, most, expected):
    small, large = Measured(2, 5 * GB), Measured(4, 9 * GB)
    found = largest_batch(small, large, free, devices, most)
    assert found == expected
    assert found % devices == 0


def test_too_little_memory_for_one_image_is_an_error():
    with pytest.raises(BackendError) as caught:
        largest_batch(Measured(2, 5 * GB), Measured(4, 9 * GB), 3 * GB, 1, 100)
    assert str(caught.value) == (
        "batch=-1: a step with one image takes 3.0 GB, but 80% of the free memory are 2.4 GB; "
        "lower imgsz or set multi_scale=false"
    )


def test_equal_peaks_limit_the_batch_to_the_data():
    assert largest_batch(Measured(2, GB), Measured(4, GB), 2 * GB, 2, 31) == 30


@pytest.mark.parametrize("boxes", [100, 250])
def test_the_heaviest_batch_has_all_denoising_queries(boxes, tiny_config):
    network = RTDETRNetwork(tiny_config, 3).train()
    network.decoder.denoising = DenoisingConfig(num_denoising=100)
    batch = full_batch(2, (64, 96), boxes)
    assert batch.images.shape == (2, 3, 64, 96)
    groups = network(batch.images, batch.targets).denoising_groups
    assert groups.num_queries == 200


def test_the_measured_step_leaves_the_network_unchanged(tiny_config):
    torch.manual_seed(0)
    network = RTDETRNetwork(tiny_config, 3)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    settings = TrainSettings(data="x", model="x.yaml", amp="off")
    state = copied_state(settings, network, False, torch.device("cpu"))
    assert train_step(state, Criterion(), full_batch(2, (64, 64), 5)) is not None
    assert not torch.equal(
        state.network.decoder.enc_score_head.weight, network.decoder.enc_score_head.weight
    )
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_automatic_batch_without_cuda_is_an_error(tiny_yaml, squares, tmp_path, capsys):
    words = [f"model={tiny_yaml}", f"data={squares / 'data.yaml'}", f"project={tmp_path / 'runs'}"]
    assert run(["train", *words, "device=cpu", "batch=-1"]) == 2
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith(
            "train: batch=-1 fits the memory of a CUDA device and this run is on cpu; "
            "choose a batch, for example batch=8"
        )
    )
    assert not (tmp_path / "runs").exists()


def test_other_batches_below_one_are_rejected(tiny_yaml, squares, capsys):
    for batch in ("0", "-2"):
        words = [f"model={tiny_yaml}", f"data={squares / 'data.yaml'}", f"batch={batch}"]
        assert run(["train", *words]) == 2
        assert "batch must be at least 1, or -1" in capsys.readouterr().err
