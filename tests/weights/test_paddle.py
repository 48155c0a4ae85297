"""Bare pickles of numpy arrays, as Paddle writes them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.paddle import read_arrays
from rtdetr_cli.weights.reader import open_weights

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "half": RANDOM.random((2, 3)).astype("f2"),
    "single": RANDOM.random((2, 3, 1, 1)).astype("f4"),
    "double": RANDOM.random(5),
    "int": np.arange(3, dtype="i4"),
    "long": np.array(7),
    "bool": np.array([True, False]),
    "empty": np.zeros((0, 4), dtype="f4"),
    "columns first": np.asfortranarray(RANDOM.random((3, 4, 2))),
}


def read(tmp_path, content, dtype=torch.float64):
    path = tmp_path / "x.pdparams"
    path.write_bytes(content)
    return read_arrays(path, dtype)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_of_every_dtype_equal_those_numpy_reads(protocol, tmp_path):
    tensors, others = read(tmp_path, pickle.dumps(ARRAYS | {"table": {"a": "b"}}, protocol))
    assert others == ("table",)
    assert list(tensors) == list(ARRAYS)
    for name, array in ARRAYS.items():
        is_float = array.dtype.kind == "f"
        expected = torch.from_numpy(np.ascontiguousarray(array))
        expected = expected.double() if is_float else expected
        assert tensors[name].shape == array.shape
        assert torch.equal(tensors[name].reshape(-1), expected.reshape(-1))
        assert tensors[name].dtype == expected.dtype


@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_both_names_of_numpy_are_read(module, tmp_path):
    content = pickle.dumps({"a": np.ones(3)}, 2)
    written = b"numpy._core" if b"numpy._core" in content else b"numpy.core"
    tensors, _ = read(tmp_path, content.replace(written, module.encode()))
    assert tensors["a"].tolist() == [1, 1, 1]


class Named:
    """Pickles as Paddle writes a tensor outside a state dict: its name and its array."""

    def __init__(self, array):
        self.array = array

    def __reduce__(self):
        return tuple, (("linear_0.w_0", self.array),)


def test_an_array_in_a_tuple_with_its_name_is_found(tmp_path):
    tensors, _ = read(tmp_path, pickle.dumps({"a": Named(np.ones(2))}, 4))
    assert tensors["a"].tolist() == [1, 1]


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pdparams_file_opens_as_the_original_network(protocol, edited_config, kit, tmp_path):
    torch.manual_seed(0)
    state = RTDETRNetwork(edited_config, 3).state_dict()
    state["decoder.denoising_class_embed.weight"][-1] = 0  # the padding row, which Paddle lacks
    found = open_weights(kit.write_paddle(tmp_path / "model.pdparams", state, protocol))
    assert found.config == edited_config
    assert found.origin == "Paddle names"
    assert found.names == {0: "class0", 1: "class1", 2: "class2"}
    assert set(found.weights) == set(state)
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in state.items())
    assert "entries that are not weights dropped: StructuredToParameterName@@" in found.notes


def swapped(old, new):
    """The stream of one array of six float32 with a part of it exchanged."""
    content = pickle.dumps({"a": np.zeros((2, 3), "f4")}, 4)
    assert old in content
    return content.replace(old, new)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (swapped(b"K\x02K\x03\x86", b"K\x02K\x04\x86"), "has 24 bytes instead of those of"),
        (swapped(b"K\x02K\x03\x86", b"J\xff\xff\xff\xffK\x03\x86"), "an impossible shape"),
        (swapped(b"\x8c\x02f4", b"\x8c\x02c8"), "of an unsupported kind"),
        (swapped(b"\x8c\x01<", b"\x8c\x01>"), "of an unsupported kind"),
        (pickle.dumps({"a": np.array(["text"], dtype=object)}, 4), "of an unsupported kind"),
        (pickle.dumps([np.zeros(3)], 4), "without named arrays"),
        (pickle.dumps(0x1950A86A20F9469CFC6C, 2), "written by PyTorch before 1.6"),
        (pickle.dumps({"a": np.zeros(9)}, 4)[:-20], "is damaged"),
    ],
)
def test_inconsistent_arrays_are_a_one_line_error(content, sentence, tmp_path):
    with pytest.raises(WeightsError, match=sentence) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_the_same_bytes_do_not_become_many_tensors(tmp_path):
    array = np.zeros(10_000)
    content = pickle.dumps({str(i): array for i in range(1000)}, 4)
    assert len(content) < 100_000
    with pytest.raises(WeightsError, match="its arrays are larger than the file"):
        read(tmp_path, content)


def test_a_file_larger_than_any_rtdetr_is_rejected(tmp_path):
    path = tmp_path / "x.pdparams"
    with path.open("wb") as file:
        file.write(b"\x80\x04")
        file.truncate(2**31 + 1)  # a hole: takes no disk
    with pytest.raises(WeightsError, match="more than any RT-DETR"):
        open_weights(path)
