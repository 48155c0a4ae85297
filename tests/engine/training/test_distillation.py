"""Distillation from a network of this toolkit and from an ONNX file, through the real command."""

from __future__ import annotations

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from rtdetr_cli.backends.torch import build_network
from rtdetr_cli.cli.main import run
from rtdetr_cli.core.errors import UsageError, WeightsError
from rtdetr_cli.engine.training.distillation import (
    PROJECTOR,
    Distiller,
    add_projector,
    open_teacher,
    projector_channels,
    without_projector,
)
from rtdetr_cli.loss.distillation import distill_loss
from rtdetr_cli.weights.checkpoint import load_checkpoint
from tests.engine.test_train import command, read_rows
from tests.engine.training.test_resume import ends_alike, raise_at

CPU = torch.device("cpu")
KEYS = ("epochs=2", "batch=4", "save_steps=1", "amp=off", "multi_scale=false")


def write_teacher(path, size="W", stride=32):
    """A map of three channels: the mean color of each cell."""
    node = helper.make_node(
        "AveragePool", ["image"], ["map"], kernel_shape=[stride, stride], strides=[stride, stride]
    )
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["B", 3, size, size])
    feature = helper.make_tensor_value_info("map", TensorProto.FLOAT, ["B", 3, None, None])
    graph = helper.make_graph([node], "teacher", [image], [feature])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.fixture
def teacher(tmp_path):
    return write_teacher(tmp_path / "teacher.onnx")


def test_f5_of_the_forward_pass_is_projected_and_compared(tiny_config, teacher):
    torch.manual_seed(0)
    network = build_network(tiny_config, 2).eval()
    distiller = open_teacher(str(teacher), 5.0, CPU, batch=2, sizes_hw={(64, 96)})
    add_projector(network, distiller.channels)
    distiller.watch(network)
    images = torch.rand(2, 3, 64, 96)
    network(images)
    loss = distiller.loss(images)
    s5 = network.encoder.input_proj[-1](network.backbone(images)[-1])
    f5 = network.encoder.encoder[0](s5)  # (2, 16, 2, 3)
    linear = network.encoder.feature_projector[0]
    projected = torch.einsum("oc,bchw->bohw", linear.weight, f5) + linear.bias[:, None, None]
    cells = images.unflatten(3, (3, 32)).unflatten(2, (2, 32)).mean((3, 5))
    torch.testing.assert_close(loss, 5 * distill_loss(projected, cells))
    loss.backward()
    assert linear.weight.grad.abs().sum() > 0
    assert network.backbone.stem_and_stages[0].stem1.conv.weight.grad.abs().sum() > 0


def test_a_network_is_its_own_best_teacher(tiny_config, checkpoint):
    distiller = open_teacher(str(checkpoint), 1.0, CPU, batch=1, sizes_hw={(64, 64)})
    assert distiller.channels == 16
    stopped = load_checkpoint(checkpoint)
    network = build_network(tiny_config, 2, stopped.weights).eval()
    add_projector(network, 16)
    torch.nn.init.eye_(network.encoder.feature_projector[0].weight)
    torch.nn.init.zeros_(network.encoder.feature_projector[0].bias)
    distiller.watch(network)
    images = torch.rand(1, 3, 64, 64)
    network(images)
    assert distiller.loss(images).item() == pytest.approx(0, abs=1e-6)


def test_a_run_with_a_teacher_resumes_bit_identical_and_saves_no_projector(
    tiny_yaml, squares, teacher, tmp_path, monkeypatch
):
    whole, project = tmp_path / "whole", tmp_path / "resumed"
    keys = (*KEYS, f"teacher={teacher}", "distill=2", "clean_epochs=1", "restart=true")
    assert run(command(tiny_yaml, squares, whole, *keys)) == 0
    assert 0 < float(read_rows(whole / "train")[0]["train/loss_distill"]) < 4
    raise_at({1, 3}, KeyboardInterrupt, monkeypatch)
    assert run(command(tiny_yaml, squares, project, *keys)) == 130
    codes = [run(["train", "resume=true", f"project={project}"]) for _ in range(2)]
    assert codes == [130, 0]
    assert ends_alike(project, whole)
    last = load_checkpoint(whole / "train" / "weights" / "last.pt")
    assert projector_channels(last.training["network"]) == 3
    assert not [name for name in last.weights if name.startswith(PROJECTOR)]
    best = load_checkpoint(whole / "train" / "weights" / "best.pt")
    assert best.weights.keys() == last.weights.keys()


def test_without_projector_leaves_the_rest():
    state = {f"{PROJECTOR}0.weight": torch.zeros(3, 2), "encoder.x": torch.ones(1)}
    assert list(without_projector(state)) == ["encoder.x"]
    assert projector_channels(state) == 3
    for broken in ({}, {f"{PROJECTOR}0.weight": 3}, {f"{PROJECTOR}0.weight": torch.zeros(3)}):
        with pytest.raises(WeightsError, match="no projector"):
            projector_channels(broken)


def test_a_teacher_of_another_size_is_refused_with_what_to_change(tmp_path):
    fixed = write_teacher(tmp_path / "fixed.onnx", size=64)
    distiller = open_teacher(str(fixed), 1.0, CPU, batch=2, sizes_hw={(64, 64)})
    assert isinstance(distiller, Distiller)
    with pytest.raises(UsageError, match=r"cannot take 2 images of 64x96 pixels .*multi_scale=fal"):
        open_teacher(str(fixed), 1.0, CPU, batch=2, sizes_hw={(64, 64), (64, 96)})


@pytest.mark.parametrize(
    ("words", "sentence", "code"),
    [
        (["teacher=none.onnx"], "none.onnx is not a regular file", 4),
        (["teacher=some.engine"], "some.engine must be weights of a network or an .onnx file", 2),
        (["distill=2"], "distill=2 has no effect without teacher", 2),
        (["teacher=t.onnx", "compile=true"], "teacher cannot be combined with compile=true", 2),
    ],
)
def test_a_teacher_that_cannot_be_used_is_refused(
    words, sentence, code, tiny_yaml, squares, tmp_path, capsys
):
    assert run(command(tiny_yaml, squares, tmp_path / "runs", *words)) == code
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
