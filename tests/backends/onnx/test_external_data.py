"""External weights: allowed beside the ONNX file, rejected elsewhere."""

from __future__ import annotations

import os

import pytest
from onnx import TensorProto, helper

from rtdetr_cli.backends.load import load_detector
from rtdetr_cli.backends.onnx.detector import OnnxDetector
from rtdetr_cli.backends.onnx.external_data import check_file
from rtdetr_cli.core.errors import WeightsError


def save(path, location, nested=False):
    """A graph with one weight in another file; with `nested`, as an attribute in a subgraph."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    output = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])]
    nodes = [helper.make_node("Constant", [], ["y"], value=weight)]
    if nested:
        branch = helper.make_graph(nodes, "branch", [], output)
        nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)]
    graph = helper.make_graph(nodes, "g", [], output, [] if nested else [weight])
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    "location", ["../secret.bin", "a/../../secret.bin", "/etc/passwd", "link.bin", "a\0b"]
)
def test_weights_outside_of_the_folder_are_rejected(tmp_path, location, nested):
    (tmp_path / "secret.bin").write_bytes(b"\0" * 16)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    path = save(folder / "x.onnx", location, nested)
    with pytest.raises(
        WeightsError, match="outside of its folder; only files beside it are allowed"
    ):
        OnnxDetector(path, "cpu")


@pytest.mark.parametrize("location", ["absent.bin", "", ".", "*/_ORT_MEM_ADDR_/*", "fifo"])
def test_missing_weights_are_rejected(tmp_path, location):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(WeightsError, match=r"x\.onnx reads weights from .*not beside it"):
        OnnxDetector(save(tmp_path / "x.onnx", location), "cpu")


def test_weights_beside_the_file_may_be_links_of_a_cache(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "w").write_bytes(b"\0" * 16)
    save(blobs / "m", "x.onnx_data")
    (snapshot / "x.onnx").symlink_to(blobs / "m")
    (snapshot / "x.onnx_data").symlink_to(blobs / "w")
    check_file(snapshot / "x.onnx")
    (snapshot / "x.onnx_data").unlink()
    (snapshot / "x.onnx_data").write_bytes(b"\0" * 16)
    check_file(snapshot / "x.onnx")


def test_a_path_that_is_not_a_file_is_rejected_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo.onnx")
    for name in ("fifo.onnx", "absent.onnx", "."):
        with pytest.raises(WeightsError, match="is not a regular file"):
            OnnxDetector(tmp_path / name, "cpu")
    for name in ("x.engine", "x.xml"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(WeightsError, match="expected a file"):
            load_detector(str(tmp_path / name), "cpu")
    (tmp_path / "int8.onnx").write_bytes(b"rtdetr_format QuantizeLinear")
    with pytest.raises(WeightsError, match="cannot be opened as ONNX"):
        OnnxDetector(tmp_path / "int8.onnx", "cpu")
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(WeightsError, match="cannot be opened as ONNX"):
        OnnxDetector(tmp_path / "empty.onnx", "cpu")
    (tmp_path / "noise.onnx").write_bytes(b"\xff location \xff")
    with pytest.raises(WeightsError, match="cannot be opened as ONNX"):
        OnnxDetector(tmp_path / "noise.onnx", "cpu")
