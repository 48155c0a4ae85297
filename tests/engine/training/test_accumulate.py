"""Gradient accumulation: several small batches train as one large one."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.core.structures import Batch, Target
from rtdetr_cli.engine.training.failures import explain_out_of_memory
from rtdetr_cli.engine.training.precision import choose_precision
from rtdetr_cli.engine.training.step import backward, box_shares, in_groups, num_groups
from rtdetr_cli.loss.criterion import Criterion
from rtdetr_cli.nn.denoising import DenoisingConfig
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

CPU = torch.device("cpu")


def make_batch(*box_counts: int) -> Batch:
    """Random images of 64x64 pixels with so many boxes each."""
    targets = [
        Target(torch.rand(n, 4, dtype=torch.float64) * 0.3 + 0.2, torch.randint(0, 2, (n,)))
        for n in box_counts
    ]
    size = len(box_counts)
    images = torch.rand(size, 3, 64, 64, dtype=torch.float64)
    return Batch(images, targets, list(range(size)), [(64, 64)] * size, ["a.png"] * size)


def one_batch(parts: list[Batch]) -> Batch:
    whole = make_batch()
    return Batch(
        torch.cat([part.images for part in parts]),
        [target for part in parts for target in part.targets],
        whole.image_ids, whole.sizes_hw, whole.paths,
    )  # fmt: skip


@pytest.fixture
def run(tiny_config):
    """What `backward` reads; norms in eval mode, as batch statistics depend on the batch size."""
    torch.manual_seed(0)
    network = RTDETRNetwork(tiny_config, num_classes=2).double().train()
    # as in StepState: PyTorch 2.14's BatchNorm gives wrong gradients on CPUs for one contiguous
    # image whose gradient comes as channels-last
    network.to(memory_format=torch.channels_last)
    network.decoder.denoising = DenoisingConfig(0, 0.5, 1.0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    with torch.no_grad():  # initial queries are all alike, so rounding would decide the matching
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    alone = lambda is_last: nullcontext()  # noqa: E731  (no other process waits for gradients)
    precision = choose_precision("off", CPU)
    return SimpleNamespace(
        network=network,
        replica=network,
        device=CPU,
        gradient_sync=alone,
        precision=precision,
        distiller=None,
    )


def gradients(run, batches: list[Batch]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    run.network.zero_grad()
    losses = backward(run, Criterion(), batches)
    return losses["loss"], [p.grad.clone() for p in run.network.parameters() if p.grad is not None]


@pytest.mark.parametrize("counts", [((3, 1), (0, 5), (2,)), ((2,), (1,)), ((4, 4), (0, 0))])
def test_small_batches_give_the_gradient_of_a_large_one(run, counts):
    torch.manual_seed(1)
    parts = [make_batch(*numbers) for numbers in counts]
    loss, small = gradients(run, parts)
    expected_loss, large = gradients(run, [one_batch(parts)])
    torch.testing.assert_close(loss, expected_loss, rtol=1e-6, atol=0)
    small, large = (torch.cat([part.flatten() for part in parts]) for parts in (small, large))
    assert (small - large).norm() < 1e-5 * large.norm()  # the criterion works in float32


def test_a_plain_mean_of_losses_is_wrong(run):
    parts = [make_batch(4, 4), make_batch(1)]
    expected, _ = gradients(run, [one_batch(parts)])
    alone = [gradients(run, [part])[0] for part in parts]
    assert not torch.isclose(sum(alone) / 2, expected, rtol=1e-4)


def test_batch_weights_are_shares_of_the_boxes():
    batches = [make_batch(3, 1), make_batch(0, 0), make_batch(4)]
    assert box_shares(batches, CPU).tolist() == [0.5, 0.125, 0.5]
    assert box_shares(batches[:1], CPU).tolist() == [1.0]
    assert box_shares(batches[1:2] * 2, CPU).tolist() == [1.0, 1.0]


def test_the_last_step_of_an_epoch_may_be_shorter():
    batches = [make_batch(1) for _ in range(5)]
    assert [len(group) for group in in_groups(batches, 2)] == [2, 2, 1]
    assert num_groups(5, 2) == 3


def test_out_of_memory_names_batch_and_size_and_what_to_lower():
    settings = SimpleNamespace(batch=16, imgsz=32, accumulate=1)
    with (
        pytest.raises(
            BackendError, match=r"batch=16 with 2 images of 64x64.* up to 5 boxes"
        ) as hit,
        explain_out_of_memory([make_batch(5, 0)], settings),
    ):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")
    assert "batch=8 accumulate=2" in str(hit.value)
    assert "multi_scale=false" in str(hit.value)


def test_other_errors_are_not_changed():
    with (
        pytest.raises(RuntimeError, match="size"),
        explain_out_of_memory([make_batch(1)], SimpleNamespace(batch=1, imgsz=64, accumulate=1)),
    ):
        torch.zeros(2) + torch.zeros(3)
