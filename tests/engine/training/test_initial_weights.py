"""Training from an ImageNet backbone through the real command, at toy size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from rtdetr_cli.cli.main import run
from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.engine.training.initial_weights import from_backbone, initial_network
from rtdetr_cli.engine.training.run_log import RunLog
from rtdetr_cli.nn.backbones import build_backbone
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.backbone import read_backbone
from rtdetr_cli.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


@pytest.fixture
def imagenet(tiny_config, tmp_path) -> Path:
    """The tiny backbone as its classifier's file, with statistics of its own."""
    torch.manual_seed(5)
    state = build_backbone(tiny_config.backbone).state_dict()
    for key, tensor in state.items():
        if key.endswith(("running_mean", "running_var")):
            state[key] = tensor - 0.5 * torch.rand_like(tensor)  # no ReLU is dead
    path = tmp_path / "imagenet.pth"
    torch.save(state | {"fc.weight": torch.ones(10, 32)}, path)
    return path


@pytest.fixture
def frozen_yaml(tiny_yaml) -> Path:
    """The tiny architecture with a recipe like that of L."""
    recipe = {"backbone_lr": 5e-6, "freeze_stem": True, "freeze_backbone_norm": True}
    values = yaml.safe_load(tiny_yaml.read_text()) | {"recipe": recipe}
    tiny_yaml.write_text(yaml.safe_dump(values))
    return tiny_yaml


def command(model: Path, data: Path, project: Path, *more: str) -> list[str]:
    return [
        "train", f"model={model}", f"data={data / 'data.yaml'}", f"project={project}", "imgsz=64",
        "batch=4", "workers=0", "device=cpu", "plots=false", *more,
    ]  # fmt: skip


def test_the_backbone_is_taken_and_the_recipe_is_that_of_a_pretrained_one(
    frozen_yaml, imagenet, squares, tmp_path, capsys
):
    words = command(
        frozen_yaml, squares, tmp_path / "runs", "epochs=1", f"pretrained={imagenet}", "ema_decay=0"
    )
    assert run(words) == 0
    said = capsys.readouterr().err
    assert (
        "backbone from imagenet.pth; encoder and decoder from scratch; "
        "1 classifier tensors dropped: fc.weight" in said
    )
    assert "AdamW lr 0.0001, backbone 5e-06" in said
    assert "stem frozen, backbone norms frozen" in said
    expected = torch.load(imagenet, weights_only=True)
    last = load_checkpoint(tmp_path / "runs/train/weights/last.pt")
    assert last.licence == (
        "backbone from imagenet.pth: which records no licence; the rest is yours"
    )
    found = last.weights
    is_equal = {
        key: torch.equal(found[f"backbone.{key}"], tensor)
        for key, tensor in expected.items()
        if key != "fc.weight"
    }
    kept = {key for key in is_equal if key.startswith("stem.") or ".bn." in key}
    assert all(is_equal[key] for key in kept)
    moved = {key for key in is_equal if not is_equal[key]}
    assert moved == is_equal.keys() - kept
    assert all(torch.allclose(found[f"backbone.{key}"], expected[key], atol=2e-5) for key in moved)


def test_a_stopped_run_resumes_without_the_file(
    frozen_yaml, imagenet, squares, tmp_path, monkeypatch, capsys
):
    append = RunLog.append

    def interrupted(self: RunLog, row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt
        append(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "append", interrupted)
        words = command(
            frozen_yaml, squares, tmp_path / "runs", "epochs=2", f"pretrained={imagenet}"
        )
        assert run(words) == 130
    imagenet.unlink()
    capsys.readouterr()
    assert run(["train", "resume=true", f"project={tmp_path / 'runs'}"]) == 0
    licence = load_checkpoint(tmp_path / "runs/train/weights/best.pt").licence
    assert licence.startswith("backbone from imagenet.pth: ")
    assert "stem frozen, backbone norms frozen" in capsys.readouterr().err


def test_a_wrong_architecture_is_rejected_with_its_first_tensors_and_the_nearest(tiny_config):
    state = build_backbone(load_model_config("rtdetr-n").backbone).state_dict()
    backbone = read_backbone(state, "n.pth")
    with pytest.raises(WeightsError) as caught:
        from_backbone(tiny_config, 2, backbone)
    sentence = str(caught.value)
    assert sentence.startswith("n.pth does not fit: backbone.")
    assert sentence.endswith(
        "(nearest is rtdetr-n: 210 of its 210 tensors have these names and shapes)"
    )


def test_a_mismatch_ends_the_command_with_one_sentence(
    tiny_yaml, tiny_config, squares, tmp_path, capsys
):
    backbone = tiny_config.backbone
    wider = replace(backbone, stem=(4, 12))
    torch.save(build_backbone(wider).state_dict(), tmp_path / "wider.pth")
    words = command(tiny_yaml, squares, tmp_path / "runs", f"pretrained={tmp_path / 'wider.pth'}")
    assert run(words) == 4
    assert "backbone.stem.stem4.conv.weight is (12, 4, 1, 1) instead of (8, 4, 1, 1)" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "runs").exists()


def test_the_norms_have_the_official_epsilon(tiny_config, imagenet):
    state = torch.load(imagenet, weights_only=True)
    network = from_backbone(tiny_config, 2, read_backbone(state, "x.pth"))
    norms = [m for m in network.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-5}
    assert torch.equal(norms[0].running_mean, state["stem.stem1.bn.running_mean"])


def test_an_architecture_without_published_backbone_is_rejected(
    tiny_yaml, squares, tmp_path, capsys
):
    words = command(tiny_yaml, squares, tmp_path / "runs", "pretrained=backbone")
    assert run(words) == 4
    assert "tiny has a custom backbone" in capsys.readouterr().err


def test_the_licence_follows_the_weights(tiny_yaml, tiny_config, squares):
    """From scratch, from a file of Ultralytics, and from weights that were fine-tuned before."""
    data, names = str(squares / "data.yaml"), {0: "a"}
    fresh = initial_network(TrainSettings(data=data, model=str(tiny_yaml)), names, None)
    assert fresh[1:] == (False, "yours: trained from scratch")
    path = tiny_yaml.with_name("theirs.pt")
    weights = RTDETRNetwork(tiny_config, 1).state_dict()
    for licence in ("AGPL-3.0, stated in the file", "fine-tuned from theirs.pt: AGPL-3.0, x"):
        save_checkpoint(path, Checkpoint(tiny_config, names, weights, licence=licence))
        tuned = initial_network(TrainSettings(data=data, model=str(path)), names, None)
        kept = licence.removeprefix("fine-tuned from theirs.pt: ")
        assert tuned[1:] == (True, f"fine-tuned from theirs.pt: {kept}")
