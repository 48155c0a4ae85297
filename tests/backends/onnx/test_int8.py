"""Positions of Q/DQ pairs, what they compute, and the form for the CPU."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper, parser
from torch.nn import functional as F

from rtdetr_cli.backends.onnx.calibration import Observer
from rtdetr_cli.backends.onnx.int8 import blocks, largest_pairs, plan, quantize
from rtdetr_cli.backends.onnx.int8_on_cpu import may_saturate, restate_for_cpu, restated_for_cpu
from rtdetr_cli.backends.onnx.session import open_session
from rtdetr_cli.backends.onnx.writer import write_onnx
from rtdetr_cli.backends.tensorrt.rules import find_faults
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

GRAPH = """<ir_version: 8, opset_import: ["" : 17]>
net (float[N,3,8,8] images) => (float[N,2,8,8] scores) {
  a = Conv<pads = [1, 1, 1, 1]>(images, w0, b0)
  r = Relu(a)
  p = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(r)
  s = Conv(r, w1, b1)
  g = Sigmoid(s)
  m = Mul(s, g)
  t = Add(m, r)
  c = Concat<axis = 1>(p, t)
  e = Conv(c, w2, b2)
  f = Relu(e)
  scores = Conv(f, w3, b3)
}"""
NAMES = [
    *("backbone/stem/Conv", "backbone/stem/Relu", "backbone/stem/MaxPool"),
    *("backbone/stages/0/blocks/0/Conv", "backbone/stages/0/Sigmoid", "backbone/stages/0/Mul"),
    *("backbone/stages/0/Add", "encoder/Concat", "encoder/fpn_blocks/1/Conv"),
    *("encoder/fpn_blocks/1/Relu", "decoder/value/Conv"),
]
SHAPES = {"w0": (4, 3, 3, 3), "w1": (4, 4, 1, 1), "w2": (6, 8, 1, 1), "w3": (2, 6, 1, 1)}


def make_model() -> onnx.ModelProto:
    """A stem with ReLU, a stage with SiLU and a sum, a pool, a concatenation; a float decoder."""
    model = parser.parse_model(GRAPH)
    numbers = np.random.default_rng(0)
    for node, name in zip(model.graph.node, NAMES, strict=True):
        node.name = name
    for name, shape in SHAPES.items():
        weight = numbers.normal(size=shape).astype(np.float32)
        weight[0] *= 100  # one scale for all channels would lose the others
        for part, value in ((name, weight), (name.replace("w", "b"), weight.mean((1, 2, 3)))):
            model.graph.initializer.append(numpy_helper.from_array(value, part))
    for key, value in {"rtdetr_format": 1, "precision": "int8"}.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    return model


def run(model: onnx.ModelProto, images: np.ndarray, *names: str) -> list[np.ndarray]:
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for name in names:
        model.graph.output.append(helper.make_tensor_value_info(name, 1, None))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(list(names) or None, {"images": images})


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).random((2, 3, 8, 8), np.float32)


@pytest.fixture(scope="module")
def largest(images) -> dict[str, float]:
    model = make_model()
    names = [name for name in plan(model.graph).readers if name != "images"]
    found = dict(zip(names, run(model, images, *names), strict=True)) | {"images": images}
    return {name: float(np.abs(values).max()) for name, values in found.items()}


def test_pairs_are_where_operators_can_run_on_integers():
    graph = make_model().graph
    assert blocks(graph) == ["backbone/stem", "backbone/stages/0", "encoder/fpn_blocks/1"]
    pairs = plan(graph)
    readers = {name: {node.op_type for node, _ in them} for name, them in pairs.readers.items()}
    assert readers == {
        "images": {"Conv"},
        "r": {"Conv", "MaxPool", "Add"},  # the branch that enters the sum as well
        "p": {"Concat"},
        "s": {"Sigmoid", "Mul"},
        "m": {"Add"},
        "t": {"Concat"},
        "c": {"Conv"},
    }  # not a and e, which a ReLU reads, nor f, which only the decoder reads


def test_a_block_that_stays_float_has_no_pairs(largest):
    model = make_model()
    readers = plan(model.graph, ["encoder/fpn_blocks/1"]).readers
    assert set(readers) == {"images", "r", "s"}
    everything = quantize(model, largest, blocks(model.graph))
    assert everything == model


def test_both_halves_of_a_split_have_pairs_of_their_own():
    """The fusion block of D-FINE's encoder convolves and adds both halves of a map."""
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
    net (float[1,2,4,4] images) => (float[1,1,4,4] scores)
    <float[1,1,1,1] v = {2.0}, float[1,1,1,1] w = {3.0}> {
      a, b = Split<axis = 1>(images)
      s = Conv(a, v)
      t = Conv(b, w)
      scores = Add(s, t)
    }""")
    for node, name in zip(model.graph.node, ("Split", "0/Conv", "1/Conv", "Add"), strict=True):
        node.name = f"encoder/fpn_block/{name}"
    low = quantize(model, dict.fromkeys(plan(model.graph).readers, 1.0))
    names = [node.name for node in low.graph.node]
    assert len(names) == len(set(names))
    assert run(low, np.full((1, 2, 4, 4), 0.5, np.float32))[0] == pytest.approx(2.5, abs=0.02)


def test_the_graph_is_valid_for_tensorrt(largest):
    model = quantize(make_model(), largest)
    onnx.checker.check_model(model, full_check=True)
    assert find_faults(model) == []
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    assert constants["w0_int8"].dtype == np.int8
    assert constants["w0_scale"].shape == (4,)
    pairs = largest_pairs(constants["w0_int8"])
    assert (pairs <= 128).all()  # each of two weights may be rounded up
    assert (pairs >= 126).all()
    assert constants["b0"].dtype == constants["w3"].dtype == np.float32
    assert "w0" not in constants
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    joined = {float(constants[f"{name}_scale"]) for name in ("r", "p", "t", "c")}
    assert joined == {np.float32(max(largest[name] for name in "rptc") / 127)}


def test_outputs_equal_fake_quantization_in_pytorch(largest, images):
    model = quantize(make_model(), largest, ["backbone/stages/0", "encoder/fpn_blocks/1"])
    given = {
        one.name: torch.tensor(numpy_helper.to_array(one)) for one in make_model().graph.initializer
    }
    scale = largest["images"] / 127
    rounded = torch.fake_quantize_per_tensor_affine(torch.tensor(images), scale, 0, -128, 127)
    scales = torch.tensor(largest_pairs(given["w0"].numpy()) / 127, dtype=torch.float32)
    zeros = torch.zeros(4, dtype=torch.int32)
    weight = torch.fake_quantize_per_channel_affine(given["w0"], scales, zeros, 0, -128, 127)
    expected = F.conv2d(rounded, weight, given["b0"], padding=1)
    (found,) = run(model, images, "a")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
    (exact,) = run(make_model(), images, "a")
    assert np.abs(found - exact).max() > 1e-3


def test_the_form_for_the_cpu_computes_the_same(largest, images, tmp_path):
    path = tmp_path / "int8.onnx"
    model = quantize(make_model(), largest)
    onnx.save(model, path)
    session, _ = open_session(path, "cpu")
    (found,) = session.run(None, {"images": images})
    (plain,) = run(model, images)
    (exact,) = run(make_model(), images)
    error = np.abs(plain - exact).max()
    assert np.abs(found - plain).max() < 0.3 * error  # a level here and there
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 3
    content = restated_for_cpu(path)
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    assert operators.count("QLinearConv") == 2
    assert restated_for_cpu(tmp_path / "absent.onnx") is None


def test_the_largest_pair_is_one_in_channels_last():
    weight = np.zeros((3, 2, 1, 3), np.float32)
    weight[0, 0, 0] = (5, -3, 0)  # side by side in a plane, where the other channel is between
    weight[1, :, 0, 2] = (4, 6)  # one pixel of two channels
    weight[2, 1, 0, 0] = -2  # alone
    assert largest_pairs(weight).tolist() == [5, 10, 2]


def test_only_third_party_files_may_saturate(largest):
    model = quantize(make_model(), largest)
    assert not may_saturate(model.SerializeToString())
    stored = next(one for one in model.graph.initializer if one.name == "w1_int8")
    values = numpy_helper.to_array(stored).copy()
    values[1, :2] = 127
    stored.CopyFrom(numpy_helper.from_array(values, stored.name))
    assert may_saturate(model.SerializeToString())


@pytest.mark.parametrize(("flag", "entry"), [("avx2", "1"), ("avx512_vnni", "")])
def test_foreign_int8_is_exact_on_cpus_without_8_bit_dot_products(
    flag, entry, tmp_path, monkeypatch, set_cpu
):
    set_cpu(flag)
    path = tmp_path / "foreign.onnx"
    onnx.save(make_model(), path)
    seen = []
    real = onnxruntime.InferenceSession

    def note(source, options, **keys):
        try:
            seen.append(options.get_session_config_entry("session.x64quantprecision"))
        except RuntimeError:  # it is not set
            seen.append("")
        return real(source, options, **keys)

    monkeypatch.setattr(onnxruntime, "InferenceSession", note)
    open_session(path, "cpu")
    assert seen == [entry]


def test_only_zero_points_of_activations_change(largest):
    model = quantize(make_model(), largest)
    restate_for_cpu(model)
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    zeros = {name: constants[f"{name}_zero"] for name in ("images", "r", "p", "s", "m", "t", "c")}
    assert {str(value.dtype) for value in zeros.values()} == {"uint8"}
    assert {name for name, value in zeros.items() if value == 0} == {"r", "p"}
    assert constants["w0_zero"].dtype == np.int8


@pytest.mark.parametrize(("bound", "zero", "nodes"), [(-0.5, 32, 0), (0.25, 0, 1), (-9.0, 128, 0)])
def test_a_convolution_before_a_bound_runs_on_integers(images, bound, zero, nodes):
    """The affine block of HGNetv2 folds to a bound; rounding before it gives the same values."""
    model = parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 17]>
    net (float[N,3,8,8] images) => (float[N,3,8,8] scores) <float low = {{{bound}}}> {{
      a = Conv(images, v)
      r = Clip(a, low)
      scores = Conv(r, w)
    }}""")
    for node, name in zip(model.graph.node, ("0/Conv", "0/Clip", "1/Conv"), strict=True):
        node.name = f"backbone/stages/{name}"
    for name, seed in (("v", 0), ("w", 1)):
        weight = np.random.default_rng(seed).normal(size=(3, 3, 1, 1)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    low = quantize(model, {"images": 1.0, "r": 127 / 64})
    (expected,) = run(low, images)
    restate_for_cpu(low)
    constants = {one.name: numpy_helper.to_array(one) for one in low.graph.initializer}
    assert constants["r_zero"] == zero
    kinds = [node.op_type for node in low.graph.node]
    assert kinds.count("Clip") == nodes
    assert kinds[kinds.index("Conv") + 1] == "QuantizeLinear"
    (found,) = run(low, images)
    assert np.mean(np.abs(found - expected) > 1e-5) < 0.01  # a level here and there
    assert np.ptp(expected) > 1


@pytest.mark.parametrize("size", [0.0, 1e-14])
def test_a_channel_without_weights_keeps_its_bias(largest, images, tmp_path, size):
    model = make_model()
    constants = {one.name: one for one in model.graph.initializer}
    for name, value in (("w1", size), ("b1", 5.0)):
        values = numpy_helper.to_array(constants[name]).copy()
        values[1] = value
        constants[name].CopyFrom(numpy_helper.from_array(values, name))
    path = tmp_path / "int8.onnx"
    onnx.save(quantize(model, {**largest, "s": 10.0, "m": 10.0}), path)
    for content in (restated_for_cpu(path), path.read_bytes()):
        (found,) = run(onnx.ModelProto.FromString(content), images, "m")
        np.testing.assert_allclose(found[:, 1], 5.0, atol=0.1)


def test_a_tensor_of_zeros_has_a_scale():
    model = make_model()
    largest = dict.fromkeys(plan(model.graph).readers, 0.0)
    constants = {one.name: one for one in quantize(model, largest).graph.initializer}
    assert numpy_helper.to_array(constants["r_scale"]) > 0


@pytest.mark.slow
def test_every_convolution_of_a_resnet_runs_in_integers(tiny_presnet_config, tmp_path):
    torch.manual_seed(0)
    network = RTDETRNetwork(tiny_presnet_config, 2).eval()
    path = tmp_path / "net.onnx"
    write_onnx(path, network, {0: "a", 1: "b"}, Preprocessing((64, 64), False))
    model = onnx.load(path)
    pairs = plan(model.graph)
    observer = Observer(path, pairs.readers)
    observer.detect(torch.rand(3, 3, 64, 64), [(64, 64)] * 3)
    largest = {name: one.percentile(100) for name, one in observer.histograms.items()}
    onnx.save(quantize(model, largest), path)
    assert find_faults(onnx.load(path)) == []
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 3
    content = restated_for_cpu(path)
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    fused = onnx.load(tmp_path / "fused.onnx")
    operators = [node.op_type for node in fused.graph.node]
    # All but that of S5, which only the attention reads.
    assert operators.count("QLinearConv") == len(pairs.convs) - 1


def test_both_halves_of_a_split_map_have_pairs_of_their_own_names():
    """As in the encoders of D-FINE and DEIMv2; ONNX Runtime refuses two nodes of one name."""
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[N,4,8,8] images) => (float[N,1,8,8] y) {
          first, second = Split<axis = 1>(images, sizes)
          a = Conv(first, w)
          b = Conv(second, w2)
          y = Add(a, b)
        }"""
    )
    split, *convs, total = model.graph.node
    split.name, total.name = "encoder/cv1/Split", "decoder/Add"
    for conv, name in zip(convs, "ab", strict=True):
        conv.name = f"encoder/{name}/Conv"
    for name in ("w", "w2"):
        weight = np.ones((1, 2, 1, 1), np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 2]), "sizes"))
    ours = quantize(model, {"first": 1.0, "second": 1.0})
    names = [node.name for node in ours.graph.node]
    assert len(set(names)) == len(names)
    (found,) = run(ours, np.full((1, 4, 8, 8), 0.5, np.float32))
    np.testing.assert_allclose(found, 2, atol=0.05)


def test_a_learned_shift_joins_nothing():
    """As behind the activations of D-FINE's small backbones: ReLU, scale, shift."""
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[N,2,8,8] images) => (float[N,1,8,8] y) {
          a = Conv(images, w)
          r = Relu(a)
          m = Mul(r, scale)
          s = Add(m, shift)
          y = Conv(s, w2)
        }"""
    )
    for index, node in enumerate(model.graph.node):
        node.name = f"backbone/stem/{index}/{node.op_type}"
    for name, value in {
        "w": np.ones((2, 2, 1, 1), np.float32),
        "w2": np.ones((1, 2, 1, 1), np.float32),
        "scale": np.array([2], np.float32),
        "shift": np.array([0.5], np.float32),
    }.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    assert set(plan(model.graph).readers) == {"images", "s"}
    ours = quantize(model, {"images": 1.0, "s": 3.0})
    (found,) = run(ours, np.full((1, 2, 8, 8), 0.5, np.float32))
    np.testing.assert_allclose(found, 5, atol=0.1)  # 2 channels of 2 * 1 + 0.5
