"""The stream of a GPU and its CUDA graphs; without a GPU only the error is tested."""

from __future__ import annotations

import pytest
import torch

from rtdetr_cli.backends.tensorrt.gpu import Gpu
from rtdetr_cli.core.errors import BackendError

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        (None, "TensorRT needs a CUDA GPU; PyTorch sees none here"),
        ("cpu", "TensorRT needs a CUDA GPU; found device=cpu"),
        ("0", "device=0 is not available"),
    ],
)
def test_no_gpu_is_one_sentence(device, sentence):
    if device is None and torch.backends.mps.is_available():
        sentence = "TensorRT needs a CUDA GPU"
    with pytest.raises(BackendError, match=sentence):
        Gpu(device)


@needs_gpu
def test_recorded_calls_are_ordered_with_the_work_around_them(capsys):
    gpu = Gpu()
    source, total = (torch.zeros(1 << 20, device=gpu.device) for _ in range(2))

    def add():
        total.add_(source)

    with gpu.work():
        add()
        launch = gpu.capture(add)
    for value in (1.0, 2.0, 3.0):
        source.fill_(value)
        with gpu.work():
            launch()
        source.zero_()
    assert total.unique().tolist() == [6.0]  # capturing itself runs nothing
    assert capsys.readouterr().err == ""


@needs_gpu
def test_work_that_cannot_be_recorded_is_called_directly_with_a_warning(capsys):
    gpu = Gpu()
    source = torch.full((4,), 5.0, device=gpu.device)
    seen = []
    with gpu.work():
        launch = gpu.capture(lambda: seen.append(source.sum().item()))  # waits for the GPU
    assert "cannot record a CUDA graph, so each call takes longer" in capsys.readouterr().err
    with gpu.work():
        launch()
    assert seen[-1] == 20.0
