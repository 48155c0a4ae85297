from __future__ import annotations

import errno
from dataclasses import replace

import pytest
import torch

from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.errors import StorageError, WeightsError
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights import checkpoint as module
from rtdetr_cli.weights.calibration import Calibration
from rtdetr_cli.weights.checkpoint import (
    Checkpoint,
    check_fit,
    header,
    load_checkpoint,
    save_checkpoint,
    with_header,
)


@pytest.fixture
def checkpoint(tiny_config):
    network = RTDETRNetwork(tiny_config, 3)
    optimizer = {  # as AdamW.state_dict() gives it
        "state": {i: {"step": torch.tensor(3.0), "exp_avg": torch.rand(4, i)} for i in range(3)},
        "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999), "foreach": None, "params": [0, 1, 2]}],
    }
    return Checkpoint(
        config=replace(tiny_config, norm_eps=1e-3),
        names={0: "disc", 1: "square", 2: "star"},
        weights=network.state_dict(),
        preprocessing=Preprocessing((64, 96), antialias=False),
        training={
            "optimizer": optimizer,
            "rng": torch.get_rng_state(),
            "rows": [{"epoch": 1, "loss": 0.5, "note": None}],
        },
        origin="a test",
        notes=("nothing was dropped",),
        licence="Apache-2.0, stated by nobody",
        calibration=Calibration(0.4, -0.7, (0.5, 0.25, 0.75), "a/data.yaml", "val", 5, 9),
    )


def test_a_checkpoint_survives_a_round_trip(checkpoint, tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint)
    found = load_checkpoint(path)
    for field in (
        *("config", "names", "preprocessing", "origin", "notes", "licence", "calibration"),
    ):
        assert getattr(found, field) == getattr(checkpoint, field)
    assert list(found.weights) == list(checkpoint.weights)
    assert all(torch.equal(found.weights[k], v) for k, v in checkpoint.weights.items())
    RTDETRNetwork(found.config, 3).load_state_dict(found.weights)
    assert found.training["rows"] == checkpoint.training["rows"]
    assert torch.equal(found.training["rng"], checkpoint.training["rng"])
    state, expected = found.training["optimizer"], checkpoint.training["optimizer"]
    assert state["param_groups"] == expected["param_groups"]
    assert torch.equal(state["state"][2]["exp_avg"], expected["state"][2]["exp_avg"])


def test_torch_reads_it_with_weights_only(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "best.pt", checkpoint)
    content = torch.load(tmp_path / "best.pt", weights_only=True)
    assert content["format"] == "rtdetr_cli"
    assert content["version"] == 1
    assert content["architecture"]["norm_eps"] == 1e-3
    assert content["names"][2] == "star"


def test_half_precision_is_stored_as_float32_and_float64_is_kept(checkpoint, tmp_path):
    third = torch.tensor([1 / 3], dtype=torch.float64)
    checkpoint.weights = {"half": third.half(), "double": third, "steps": torch.tensor(5)}
    save_checkpoint(tmp_path / "best.pt", checkpoint)
    found = load_checkpoint(tmp_path / "best.pt").weights
    assert found["half"].dtype == torch.float32
    assert torch.equal(found["double"], third)
    assert found["steps"].dtype == torch.int64


def test_a_view_is_saved_without_its_base(checkpoint, tmp_path):
    checkpoint.weights, checkpoint.training = {"row": torch.zeros(1000, 1000)[3]}, None
    save_checkpoint(tmp_path / "best.pt", checkpoint)
    assert (tmp_path / "best.pt").stat().st_size < 20_000


def test_a_full_disk_keeps_the_existing_file(checkpoint, tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint)
    before = path.read_bytes()

    def no_space(content, file):
        file.write(b"half a checkpoint")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.torch, "save", no_space)
    with pytest.raises(StorageError, match=r"cannot write .*last\.pt: no space left"):
        save_checkpoint(path, checkpoint)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"version": 2}, r"x\.pt has format version 2; this rtdetr reads 1"),
        ({"format": "other"}, "is not an rtdetr checkpoint"),
        ({"names": None}, r"x\.pt is damaged"),
        ({"weights": {"a": 5}}, r"x\.pt is damaged: .*a weight is not a tensor"),
        ({"weights": {"a": torch.nn.Linear}}, "instead of a plain value"),
        ({"preprocessing": {"size_hw": [1]}}, r"x\.pt is damaged"),
        ({"training": True}, r"x\.pt is damaged: .*the training state is not a mapping"),
        ({"architecture": {"name": "x"}}, r"x\.pt: backbone"),
    ],
)
def test_damage_is_a_one_line_error(change, sentence, checkpoint, tmp_path):
    path = tmp_path / "x.pt"
    save_checkpoint(path, replace(checkpoint, training=None))
    torch.save({**torch.load(path, weights_only=True), **change}, path)
    with pytest.raises(WeightsError, match=sentence) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_mismatched_tensors_are_listed(tiny_config):
    state = RTDETRNetwork(tiny_config, 3).state_dict()
    check_fit(state, state, "x.pt")
    wrong = {**state, "extra": torch.zeros(1)}
    del wrong["decoder.enc_score_head.bias"]
    wrong["decoder.enc_score_head.weight"] = torch.zeros(80, 16)
    with pytest.raises(WeightsError) as caught:
        check_fit(wrong, state, "x.pt")
    assert str(caught.value) == (
        "x.pt does not fit: decoder.enc_score_head.bias is missing; extra is not part of the "
        "network; decoder.enc_score_head.weight is (80, 16) instead of (3, 16)"
    )


def test_the_nearest_architecture_is_named_after_the_mismatches():
    one, two, three = torch.zeros(1), torch.zeros(2), torch.zeros(3)
    weights = {"a": one, "b": two, "c": three}
    shipped = [("far", {"a": one, "b": one}), ("near", {"a": one, "b": two, "c": two})]
    with pytest.raises(WeightsError) as caught:
        check_fit(weights, {"a": one, "b": two}, "x.pt", lambda: shipped)
    assert str(caught.value) == (
        "x.pt does not fit: c is not part of the network (nearest is near: 2 of its 3 tensors have "
        "these names and shapes)"
    )


def test_a_file_without_a_licence_opens_and_a_long_one_is_damage(checkpoint):
    values = header(checkpoint)
    assert with_header(values, {}, "x.pt").licence == "Apache-2.0, stated by nobody"
    for damaged in ("x" * 1001, 3, None, ["Apache-2.0"]):
        with pytest.raises(WeightsError, match=r"x\.pt is damaged"):
            with_header(values | {"licence": damaged}, {}, "x.pt")
    del values["licence"]  # written by an earlier version
    assert with_header(values, {}, "x.pt").licence == ""


@pytest.mark.parametrize("values", [0, [], {"temperature": 1.0}, {"thresholds": [0.5]}])
def test_a_damaged_calibration_is_reported(values, checkpoint):
    described = {**header(checkpoint), "calibration": values}
    with pytest.raises(WeightsError, match=r"x\.pt is damaged: .*calibration"):
        with_header(described, checkpoint.weights, "x.pt")


def test_a_file_of_before_calibrations_has_none(checkpoint):
    described = header(checkpoint)
    del described["calibration"]
    assert with_header(described, checkpoint.weights, "x.pt").calibration is None
