"""Class rows follow their names to another class list."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint
from rtdetr_cli.weights.reader import open_weights
from rtdetr_cli.weights.transfer import DENOISING_EMBEDDING, is_of_classes, transfer_classes


def tensors(num_classes: int, start: float) -> dict[str, torch.Tensor]:
    rows = torch.arange(num_classes + 1, dtype=torch.float32)[:, None].expand(-1, 4) + start
    return {
        "backbone.stem.weight": torch.full((3,), start),
        "decoder.enc_score_head.weight": rows[:-1].clone(),
        "decoder.dec_score_head.0.bias": rows[:-1, 0].clone(),
        "decoder.denoising_class_embed.weight": rows.clone(),
    }


def test_rows_with_a_known_name_move_and_other_scores_start_from_the_mean():
    old, fresh = tensors(3, start=0), tensors(2, start=100)
    weights, kept = transfer_classes(
        old, {0: "cat", 1: "dog", 2: "Bus"}, fresh, {0: "bus ", 1: "tree"}
    )
    assert kept == ["bus "]
    assert weights["decoder.enc_score_head.weight"][:, 0].tolist() == [2, 1]
    assert weights["decoder.dec_score_head.0.bias"].tolist() == [2, 1]
    assert weights["decoder.denoising_class_embed.weight"][:, 0].tolist() == [2, 101, 102]
    assert weights["backbone.stem.weight"].tolist() == [0, 0, 0]
    assert fresh["decoder.enc_score_head.weight"][0, 0] == 100  # the fresh tensors are untouched


OURS = {0: "red", 1: "white"}


def write_own(folder, state, config, _tools):
    save_checkpoint(folder / "best.pt", Checkpoint(config, OURS, state))
    return folder / "best.pt"


def write_official_v2(folder, state, _config, _tools):
    torch.save({"ema": {"module": state}}, folder / "last.pth")
    return folder / "last.pth"


def write_official_v1(folder, state, _config, _tools):
    for part, number in (("conv", 0), ("norm", 1), ("proj", 0)):
        for place in ("encoder.input_proj.0", "encoder.input_proj.1", "encoder.input_proj.2"):
            state = {
                k.replace(f"{place}.{part}.", f"{place}.{number}."): t for k, t in state.items()
            }
    torch.save({"model": state}, folder / "last.pth")
    return folder / "last.pth"


def write_paddle(folder, state, _config, tools):
    return tools.kit.write_paddle(folder / "model.pdparams", state)


def write_hugging_face(folder, _state, _config, tools):
    shapes = dict(tools.kit.shapes["hf_rtdetr_r18_disk"])
    generator = torch.Generator().manual_seed(0)
    for key, shape in shapes.items():
        if "class_embed" in key or "enc_score_head" in key:
            shapes[key] = [{80: 2, 81: 3}[shape[0]], *shape[1:]]
    state = {
        key: torch.rand(shape, generator=generator) if shape[0] < 4 else torch.zeros(shape)
        for key, shape in ((k, s or [1]) for k, s in shapes.items())
    }
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"id2label": {"0": "red", "1": "white"}}))
    return folder


def write_ultralytics(folder, _state, config, tools):
    torch.save({"model": tools.layer_numbered.model(config, ["red", "white"])}, folder / "best.pt")
    return folder / "best.pt"


@pytest.mark.parametrize(
    "write",
    [
        write_own,
        write_official_v2,
        write_official_v1,
        write_paddle,
        write_hugging_face,
        write_ultralytics,
    ],
)
def test_rows_follow_their_names_from_every_family(
    write, edited_config, kit, layer_numbered, tmp_path
):
    torch.manual_seed(0)
    state = RTDETRNetwork(edited_config, 2).state_dict()
    tools = SimpleNamespace(kit=kit, layer_numbered=layer_numbered)
    found = open_weights(write(tmp_path, state, edited_config, tools))
    second = found.names[1]
    assert second == (
        "class1" if "official" in found.origin or "Paddle" in found.origin else "white"
    )
    names = {0: "new", 1: second.upper(), 2: "other"}
    network = RTDETRNetwork(found.config, 3)
    fresh = {name: torch.full_like(t, -7) for name, t in network.state_dict().items()}
    weights, kept = transfer_classes(found.weights, found.names, fresh, names)
    network.load_state_dict(weights)
    assert kept == [second.upper()]
    for name, tensor in found.weights.items():
        if is_of_classes(name):
            start = torch.tensor(-7.0) if name == DENOISING_EMBEDDING else tensor.mean(0)
            assert torch.equal(weights[name][1], tensor[1])
            assert weights[name][[0, 2]].eq(start).all()
            assert not tensor[1].eq(-7).any()
        else:
            assert torch.equal(weights[name], tensor)
