"""ONNX files of our export: metadata, signature, constant outputs and bytes mutated, then run."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from rtdetr_cli.backends.onnx.detector import OnnxDetector
from rtdetr_cli.core.results import Results

ROWS, SIZE_HW = 5, (64, 32)
NOTES = {
    "rtdetr_format": 1,
    "names": {"0": "cat", "1": "dog", "2": "bird"},
    "preprocessing": {
        "size_hw": list(SIZE_HW),
        "antialias": True,
        "resize": "stretch",
        "input": "RGB / 255",
    },
    "architecture": {"name": "tiny", "decoder": {"num_layers": 3}},
    "decoder_layers": 3,
    "num_queries": 20,
    "precision": "fp32",
    "sampler": "grid_sample",
    "dynamic": False,
    "postprocess": True,
    "batch": None,
}
ODD = (
    *(None, True, "", "x", "\x1b]0;x\a", "\udcff", "1", -1, 0, 1, 1.5, 10**9, 10**30, float("nan")),
    *(
        [],
        {},
        [[]],
        {"a": 1},
        [1, 2],
        [10**6, 10**6],
        ["a"] * 50_000,
        {"0": {"1": []}},
        "x" * 10**6,
    ),
    *({"0": "a", "2": "b"}, {"-1": "a"}, {"0": 1.5, "1": None}, ["a", "b", "c"], ["a", ["b"], 3]),
)
SIDES = (None, "n", "\x1b[31m", -1, 0, 1, 2, 3, 4, 5, 31, 64, 65, 10**6, 2**31, 2**62)
TYPES = tuple(TensorProto.DataType.values())[:20]
NUMBERS = (float("nan"), float("inf"), -float("inf"), -1.0, 0.0, 0.5, 1.5, 3.0, 1e9, 3e38)


def case(rng: random.Random, folder: Path) -> None:
    """Make a file with one to three mutations, open it and run it on two small images."""
    notes = dict(NOTES)
    arrays = {
        "labels": np.arange(ROWS)[None] % 3,
        "boxes": np.tile(np.float32([1, 2, 30, 40]), (1, ROWS, 1)),
        "scores": np.linspace(0.9, 0.1, ROWS, dtype=np.float32)[None],
    }
    model = _model(arrays, notes)
    for _ in range(rng.choice([1, 1, 2, 3])):
        rng.choice((_notes, _texts, _signature, _constant, _constant, _node))(rng, model)
    content = model.SerializeToString()
    if rng.random() < 0.2:
        content = _damaged(rng, content)
    path = folder / "x.onnx"
    path.write_bytes(content)
    detector = OnnxDetector(path, "cpu", timeout=5)
    images = torch.zeros(2, 3, *detector.preprocessing.size_hw)
    for found in detector.detect(images, [(40, 50), (3, 900)], rng.choice([1, 300])):
        assert ((found.scores >= 0) & (found.scores <= 1.001)).all()
        assert np.isfinite(found.boxes_xyxy).all()
        assert {*found.labels.tolist()} <= detector.names.keys()
        rows = np.column_stack((found.boxes_xyxy, found.scores, found.labels))
        results = Results(np.zeros((40, 50, 3), np.uint8), "x.jpg", detector.names, rows)
        results.save_crop(folder / "crops")
        assert results.verbose()
        assert results.to_json()


def _model(arrays: dict[str, np.ndarray], notes: dict[str, object]) -> ModelProto:
    """The official contract with the same outputs for every image of a dynamic batch."""
    nodes = [
        helper.make_node("Shape", ["images"], ["batch"], end=1),
        helper.make_node("ReduceMin", ["orig_target_sizes"], ["unused"], keepdims=0),
    ]
    values, outputs = [], []
    for name, array in arrays.items():
        rest = numpy_helper.from_array(np.array(array.shape[1:]), f"{name}_rest")
        values += [numpy_helper.from_array(array, f"{name}_one"), rest]
        nodes.append(helper.make_node("Concat", ["batch", rest.name], [f"{name}_shape"], axis=0))
        nodes.append(helper.make_node("Expand", [f"{name}_one", f"{name}_shape"], [name]))
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        outputs.append(helper.make_tensor_value_info(name, kind, ["n", *array.shape[1:]]))
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, *SIZE_HW]),
        helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, ["n", 2]),
    ]
    graph = helper.make_graph(nodes, "constant", inputs, outputs, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for key, value in notes.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    return model


def _notes(rng: random.Random, model: ModelProto) -> None:
    """Another value somewhere in the metadata."""
    if not model.metadata_props:
        return
    entry = rng.choice(model.metadata_props)
    try:
        value = json.loads(entry.value)
    except ValueError:
        return
    if isinstance(value, dict) and value and rng.random() < 0.7:
        value[rng.choice(list(value))] = rng.choice(ODD)
    else:
        value = rng.choice(ODD)
    entry.value = json.dumps(value)


def _texts(rng: random.Random, model: ModelProto) -> None:
    """A note that is no JSON, is missing, or is there twice; a file of others."""
    if not model.metadata_props:
        return
    number = rng.randrange(len(model.metadata_props))
    entry = model.metadata_props[number]
    kind = rng.randrange(4)
    if kind == 0:
        entry.value = rng.choice(
            ["", "{", "[" * 200, "\0", '{"0": "a"', "1e999", "9" * 5000, "NaN"]
        )
    elif kind == 1:
        model.metadata_props.add(key=entry.key, value=rng.choice(["1", "null", '"x"']))
    elif kind == 2:
        del model.metadata_props[number]
    else:  # as others write it
        del model.metadata_props[:]
        value = rng.choice(["{0: 'a', 1: 'b', 2: 'c'}", "['a']", "(", "{0: [[]]}", "-" * 500 + "1"])
        model.metadata_props.add(key="names", value=value)


def _signature(rng: random.Random, model: ModelProto) -> None:
    """Another name, type or shape of an input or an output."""
    value = rng.choice([*model.graph.input, *model.graph.output])
    kind, tensor = rng.randrange(4), value.type.tensor_type
    if kind == 0:
        value.name = rng.choice(["images", "output0", "logits", "", "\x1b[31m", "pixel_values"])
    elif kind == 1:
        tensor.elem_type = rng.choice(TYPES)
    elif kind == 2:
        tensor.ClearField("shape")
    else:
        sides = tensor.shape.dim
        chosen = rng.choice(SIDES)
        if not sides or rng.random() < 0.2:
            sides.add(dim_value=3)
        side = rng.choice(sides)
        side.Clear()
        if isinstance(chosen, int):
            side.dim_value = chosen
        elif chosen:
            side.dim_param = chosen


def _constant(rng: random.Random, model: ModelProto) -> None:
    """Another value, shape or type in the outputs of the graph."""
    tensor = rng.choice(model.graph.initializer)
    if tensor.external_data or min(tensor.dims) < 1 or len(tensor.dims) > 3:  # mutated before
        return
    array = numpy_helper.to_array(tensor).copy()
    kind = rng.randrange(5)
    if kind == 0 and array.size:
        with np.errstate(all="ignore"):
            array.flat[rng.randrange(array.size)] = np.float64(rng.choice(NUMBERS)).astype(
                array.dtype
            )
    elif kind == 1:
        array = array.astype(rng.choice([np.float16, np.float64, np.int32, np.uint8, bool]))
    elif kind == 2:
        array = array[..., : rng.randrange(array.shape[-1] + 1)]
    elif kind == 3:
        array = array.reshape(-1)
    else:
        tensor.dims.extend([rng.choice([-1, 0, 1, 7, 2**40])] * 2)
        return
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _node(rng: random.Random, model: ModelProto) -> None:
    """Another operator, input, version or place of weights."""
    node = rng.choice(model.graph.node)
    kind = rng.randrange(5)
    if kind == 0:
        node.op_type = rng.choice(["Nothing", "Reshape", "Loop", "Identity", "", "Relu"])
    elif kind == 1 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(["", "images", "labels", "none"])
    elif kind == 2:
        model.opset_import[0].version = rng.choice([-1, 0, 1, 9, 13, 999])
    elif kind == 3:
        model.ir_version = rng.choice([0, 1, 3, 99])
    else:
        tensor = rng.choice(model.graph.initializer)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        place = rng.choice(["../../etc/passwd", "/etc/passwd", "x.onnx", "none.bin", "", ".", "\0"])
        tensor.external_data.add(key="location", value=place)


def _damaged(rng: random.Random, content: bytes) -> bytes:
    """Some bytes exchanged, or the end cut off."""
    if rng.random() < 0.3:
        return content[: rng.randrange(len(content))]
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return bytes(damaged)
