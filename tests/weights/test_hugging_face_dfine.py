"""D-FINE for transformers and from it.

transformers 5.24 (DFineForObjectDetection) loads these folders without a missing or unexpected key,
and answers as our network: query by query 3e-6 in float32, 1e-8 in float64, whose rest is its
float32 scale of points; the folders that it writes come back with equal tensors.
"""

from __future__ import annotations

import json

import pytest
import torch

from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.weights.architecture import Facts
from rtdetr_cli.weights.foreign import read_foreign
from rtdetr_cli.weights.hugging_face_dfine import dfine_config
from rtdetr_cli.weights.reader import open_weights
from rtdetr_cli.weights.write_hugging_face import hugging_face_state, write_hugging_face


def from_transformers(kit, size, families=("dfine",)):
    state = kit.filled_state(kit.shapes[f"hf_d_fine_{size}_disk"])
    state = {name: t.float() if t.is_floating_point() else t for name, t in state.items()}
    return state, read_foreign(dict(state), "model.safetensors", Facts(families=families))


@pytest.mark.parametrize("size", ["n", "s", "m"])
def test_states_come_back_bit_by_bit(size, kit):
    state, checkpoint = from_transformers(kit, size)
    found = hugging_face_state(checkpoint)
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        name: tensor.dtype for name, tensor in state.items()
    }
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("families", "activation", "name"),
    [(("dfine",), "relu", "dfine-n"), (("deim",), "silu", "deim-dfine-n")],
)
def test_a_folder_records_the_activation(families, activation, name, kit, tmp_path):
    _, checkpoint = from_transformers(kit, "n", families)
    write_hugging_face(tmp_path / "n", checkpoint)
    config = json.loads((tmp_path / "n" / "config.json").read_text())
    assert config["decoder_activation_function"] == activation
    assert config["feat_strides"] == [16, 32]
    assert config["decoder_n_points"] == [6, 6]
    found = open_weights(tmp_path / "n")
    assert (found.config, found.config.name) == (checkpoint.config, name)
    with pytest.raises(WeightsError, match="but family="):
        open_weights(tmp_path / "n", family="dfine" if activation == "silu" else "deim")


def test_deimv2_is_not_written_for_transformers(kit):
    checkpoint = read_foreign(kit.meta_state(kit.shapes["deimv2_n"]), "x.pth")
    with pytest.raises(WeightsError, match=r"deimv2-n cannot be written as hf: .* has D-FINE only"):
        dfine_config(checkpoint.config)
