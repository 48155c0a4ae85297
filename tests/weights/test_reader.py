"""Files as each family writes them, opened with `open_weights`."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint, check_fit, save_checkpoint
from rtdetr_cli.weights.reader import _by_number, _folder_facts, open_weights


@pytest.fixture
def state(edited_config):
    torch.manual_seed(0)
    return RTDETRNetwork(edited_config, 3).state_dict()


def same(weights, state):
    return list(weights) == list(state) and all(torch.equal(weights[k], state[k]) for k in state)


def test_our_own_file_is_opened(state, edited_config, tmp_path):
    checkpoint = Checkpoint(edited_config, {0: "a", 1: "b", 2: "c"}, state)
    save_checkpoint(tmp_path / "best.pt", checkpoint)
    found = open_weights(tmp_path / "best.pt")
    assert found.config == edited_config
    assert same(found.weights, state)
    assert open_weights(tmp_path / "best.pt", torch.float64).weights[next(iter(state))].dtype == (
        torch.float64
    )


@pytest.mark.parametrize("wrapping", ["plain", "model", "ema", "state_dict", "parallel"])
def test_official_files_are_opened_averaged_weights_first(wrapping, state, edited_config, tmp_path):
    raw = OrderedDict((key, torch.zeros_like(tensor)) for key, tensor in state.items())
    file = {
        "plain": state,
        "model": {"model": state, "last_epoch": 71},
        "ema": {"model": raw, "ema": {"module": state, "updates": 9}, "optimizer": {"lr": 1e-4}},
        "state_dict": {"state_dict": state},
        "parallel": {"model": OrderedDict((f"module.{k}", t) for k, t in state.items())},
    }[wrapping]
    torch.save(file, tmp_path / "model.pth")
    found = open_weights(tmp_path / "model.pth")
    assert found.config == edited_config
    assert found.origin == "official v2 names"
    assert same(found.weights, state)
    assert ("weights taken from ema.module" in found.notes) is (wrapping == "ema")


def test_a_hugging_face_folder_is_opened_with_its_names(kit, tmp_path):
    shapes = dict(kit.shapes["hf_rtdetr_r18_disk"])
    for key, shape in shapes.items():
        if "class_embed" in key or "enc_score_head" in key:
            shapes[key] = [{80: 2, 81: 3}[shape[0]], *shape[1:]]
    state = {key: torch.full(shape, 0.5, dtype=torch.half) for key, shape in shapes.items()}
    save_file(state, tmp_path / "model.safetensors")
    config = {"id2label": {"1": "dog", "0": "cat"}, "num_queries": 100, "batch_norm_eps": 1e-5}
    (tmp_path / "config.json").write_text(json.dumps(config))
    processor = {"size": {"height": 384, "width": 640}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    found = open_weights(tmp_path)
    assert found.preprocessing.size_hw == (384, 640)
    assert found.config.name == "rtdetr-r18"
    assert found.config.decoder.num_queries == 100
    assert found.names == {0: "cat", 1: "dog"}
    assert {tensor.dtype for tensor in found.weights.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        (
            "---\nlibrary_name: transformers\nlicense: apache-2.0\n---\n",
            "apache-2.0, stated in its",
        ),
        ("# license: of my car", ""),
        ("---\nlicense: \x1b[31m\n---\n", ""),
    ],
)
def test_the_licence_of_a_model_card_is_read(card, licence, tmp_path):
    (tmp_path / "README.md").write_text(card)
    found = _folder_facts(tmp_path).licence
    assert found.startswith(licence)
    assert bool(found) == bool(licence)


@pytest.mark.parametrize("index", ["9" * 5000, "one", "-1", "²"])
def test_keys_that_are_not_class_indices_are_dropped(index):
    assert _by_number({"0": "cat", index: "dog"}) == {0: "cat"}


@pytest.fixture
def module(layer_numbered, edited_config):
    config = replace(edited_config, decoder=replace(edited_config.decoder, eval_layers=3))
    torch.manual_seed(0)
    return layer_numbered.model(config, ["red", "white"]).half()


def test_a_yolo_module_is_refused_by_its_class(layer_numbered, tmp_path):
    conv = layer_numbered.part("Conv", conv=torch.nn.Conv2d(3, 8, 3), bn=torch.nn.BatchNorm2d(8))
    yolo = layer_numbered.part("RTDETRDetectionModel", model=torch.nn.Sequential(conv))
    torch.save({"model": yolo}, tmp_path / "yolo11n.pt")
    with pytest.raises(
        WeightsError, match=r"yolo11n\.pt holds Ultralytics' .*, not an RT-DETR; YO"
    ):
        open_weights(tmp_path / "yolo11n.pt")


def test_an_ultralytics_module_opens_without_importing_its_classes(
    module, edited_config, tmp_path, monkeypatch
):
    path = tmp_path / "best.pt"
    file = {"model": module, "ema": None, "train_args": {"imgsz": 330}, "license": "AGPL-3.0"}
    torch.save(file, path)
    monkeypatch.undo()  # from here on the classes do not exist
    found = open_weights(path)
    assert found.config == replace(
        edited_config,
        norm_eps=1e-3,
        decoder=replace(edited_config.decoder, eval_layers=3, anchor_precision="float64"),
    )
    assert found.names == {0: "red", 1: "white"}
    assert found.preprocessing.size_hw == (352, 352)
    assert not found.preprocessing.antialias
    assert "license: AGPL-3.0" in found.notes
    assert found.licence == "AGPL-3.0, stated in the file"
    check_fit(found.weights, RTDETRNetwork(found.config, 2).state_dict(), "best.pt")
    head = module.model[-1]
    assert torch.equal(
        found.weights["decoder.dec_score_head.3.weight"], head.dec_score_head[3].weight.float()
    )


def test_a_fused_module_has_the_outputs_of_the_unfused_one(
    module, layer_numbered, kit, tmp_path, monkeypatch
):
    module = module.double()
    generator = torch.Generator().manual_seed(0)
    for name, tensor in module.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    torch.save({"model": module}, tmp_path / "best.pt")
    torch.save({"model": kit.fuse(module)}, tmp_path / "fused.pt")
    monkeypatch.undo()
    outputs = []
    for file in ("best.pt", "fused.pt"):
        found = open_weights(tmp_path / file, torch.float64)
        network = RTDETRNetwork(found.config, 2).double().eval()
        network.load_state_dict(found.weights)
        with torch.inference_mode():
            outputs.append(network(kit.image(64, 96)))
    assert any(note.startswith("fused file") for note in found.notes)
    assert (outputs[0].pred_logits - outputs[1].pred_logits).abs().max() < 1e-12
    assert (outputs[0].pred_boxes - outputs[1].pred_boxes).abs().max() < 1e-12


def test_discrete_sampling_is_taken_from_config_json(tmp_path, kit):
    state = {
        key: torch.zeros(shape, dtype=torch.half)
        for key, shape in kit.shapes["hf_rtdetr_r18_disk"].items()
    }
    save_file(state, tmp_path / "model.safetensors")
    for method, sampling in (("default", "bilinear"), ("discrete", "discrete")):
        (tmp_path / "config.json").write_text(json.dumps({"decoder_method": method}))
        assert open_weights(tmp_path).config.decoder.sampling == sampling


def test_empty_half_precision_anchors_are_ignored(module, tmp_path):
    module.model[-1].anchors = torch.empty(0, dtype=torch.half)  # as before the first image
    torch.save({"model": module}, tmp_path / "best.pt")
    assert open_weights(tmp_path / "best.pt").config.decoder.anchor_precision == "float64"
    module.model[-1].anchors = torch.zeros(1, 5, 4, dtype=torch.half)
    torch.save({"model": module}, tmp_path / "best.pt")
    assert open_weights(tmp_path / "best.pt").config.decoder.anchor_precision == "float16"


def test_while_ultralytics_trains_the_average_is_in_ema(module, tmp_path):
    torch.save({"model": None, "ema": module, "epoch": 3}, tmp_path / "last.pt")
    assert "weights taken from ema" in open_weights(tmp_path / "last.pt").notes


def edit_residual(layers):
    layers[2].add = False


def edit_activation(layers):
    layers[-4].act = torch.nn.ReLU()


def edit_epsilon(layers):
    layers[0].stem1.bn.eps = 1e-5


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (edit_residual, r"layer 2 \(backbone.stages.0.blocks.1\) has residual False instead of T"),
        (edit_activation, "has activation ReLU instead of SiLU"),
        (edit_epsilon, "mixes BatchNorms of different epsilon"),
    ],
)
def test_changes_that_shapes_do_not_reveal_are_rejected(edit, sentence, module, tmp_path):
    edit(module.model)
    torch.save({"model": module}, tmp_path / "best.pt")
    with pytest.raises(WeightsError, match=sentence):
        open_weights(tmp_path / "best.pt")


def test_the_trained_file_is_opened(shared_data):
    found = open_weights(shared_data / "weights" / "ultralytics_n_bccd.pt")
    assert found.config.name == "rtdetr-n"
    assert found.config.norm_eps == 1e-3
    assert found.names == {0: "RBC", 1: "WBC", 2: "Platelets"}
    assert found.preprocessing.size_hw == (320, 320)
    assert any(note.startswith("license: AGPL-3.0") for note in found.notes)
    RTDETRNetwork(found.config, 3).load_state_dict(found.weights)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "neither a torch archive nor a safetensors file"),
        (b"hello, this is a text file", "neither a torch archive nor a safetensors file"),
        (b"\x80\x02}q\x00.", "holds 0 tensors but no RT-DETR"),
        (b"PK\x03\x04 and no more", "damaged"),
        (b"\x20\x00\x00\x00\x00\x00\x00\x00{ and no more", "damaged"),
    ],
)
def test_files_that_are_not_checkpoints_are_rejected(content, sentence, tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=sentence) as caught:
        open_weights(path)
    assert "\n" not in str(caught.value)


def test_missing_files_and_files_without_weights_are_reported(tmp_path):
    with pytest.raises(WeightsError, match=r"absent\.pt does not exist"):
        open_weights(tmp_path / "absent.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(WeightsError, match=r"empty\.pt is a torch file without weights"):
        open_weights(tmp_path / "empty.pt")
