"""Engines with a fake TensorRT and GPU (tests/fake_tensorrt.py), which tests only our own logic.

The last test runs the real TensorRT if there is a GPU.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rtdetr_cli.backends.load import load_detector
from rtdetr_cli.backends.onnx.detector import OnnxDetector
from rtdetr_cli.backends.tensorrt import build as builder
from rtdetr_cli.backends.tensorrt import detector as reader
from rtdetr_cli.backends.tensorrt.build import EngineOptions, build_plan, engine_notes, trtexec_line
from rtdetr_cli.backends.tensorrt.detector import (
    MAX_RUNS,
    TensorRTDetector,
    notes_file,
    open_gpu,
    save_engine,
    split_batch,
)
from rtdetr_cli.core.errors import BackendError, UsageError, WeightsError
from rtdetr_cli.weights.calibration import Calibration

SIZE_HW = (32, 64)


@pytest.fixture
def toy(fake_tensorrt, tmp_path: Path) -> Path:
    return fake_tensorrt["save_toy"](tmp_path / "toy.onnx")


def gray(*percents: int) -> torch.Tensor:
    return torch.stack([torch.full((3, *SIZE_HW), percent / 100) for percent in percents])


def make(toy: Path, options: EngineOptions | None = None, **notes: object) -> Path:
    """Build an engine beside the ONNX file; `notes` overwrite entries of its notes."""
    gpu, options = open_gpu(None), options or EngineOptions()
    plan = build_plan(toy, SIZE_HW, options, gpu)
    known = engine_notes(OnnxDetector(toy, "cpu").notes, toy, plan, options, gpu)
    path = toy.with_suffix(".engine")
    save_engine(path, plan, replace(known, **notes))
    return path


@pytest.mark.parametrize(
    ("version", "flags"),
    [("8.6.1", 1), ("9.3.0", 4), ("10.3.0", 2), ("10.16.1.11", 2), ("11.4.0.106", 1)],
)
def test_every_release_builds_strongly_typed_and_equals_onnx_runtime(tensorrt, toy, version, flags):
    module = tensorrt(version)
    detector = load_detector(str(make(toy, EngineOptions(batch=(1, 2, 2)))))
    assert module.state.network_flags == flags  # numbers of NVIDIA's headers
    assert module.state.config._flags == set()  # no flag decides a precision
    assert detector.preprocessing == OnnxDetector(toy, "cpu").preprocessing
    assert detector.names[22] == "22 %"
    assert detector.description == f"toy.engine, TensorRT {version}, NVIDIA T4"
    sizes_hw = [(10 * n, n) for n in range(1, 6)]
    found = detector.detect(gray(11, 22, 33, 44, 55), sizes_hw)
    expected = OnnxDetector(toy, "cpu").detect(gray(11, 22, 33, 44, 55), sizes_hw)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.labels.dtype, ours.labels.tolist()) == (np.int64, theirs.labels.tolist())
        assert ours.boxes_xyxy.tolist() == theirs.boxes_xyxy.tolist()
        assert ours.scores.tolist() == theirs.scores.tolist()


def test_no_images_and_max_det(tensorrt, toy):
    tensorrt()
    detector = load_detector(str(make(toy)))
    assert detector.detect(gray(3)[:0], []) == []
    assert len(detector.detect(gray(3), [(1, 1)], max_det=0)[0]) == 0


def test_a_copy_opens_the_engine_again(tensorrt, toy):
    tensorrt()
    detector = load_detector(str(make(toy)))
    other = pickle.loads(pickle.dumps(detector))
    assert other.description == detector.description
    assert other.detect(gray(30), [(4, 5)])[0].labels.tolist() == [30]


def test_outputs_are_not_overwritten_by_the_next_call(tensorrt, toy):
    tensorrt()
    detector = load_detector(str(make(toy)))
    first = detector.forward(gray(30), torch.tensor([[4, 5]]))
    detector.forward(gray(60), torch.tensor([[6, 7]]))
    assert first[0].tolist() == [[30]]
    assert first[1].tolist() == [[[4, 5, 4, 5]]]


@pytest.mark.parametrize(
    ("count", "smallest", "largest", "expected"),
    [
        (0, 1, 8, []),
        (3, 1, 8, [(0, 3, 3)]),
        (8, 1, 8, [(0, 8, 8)]),
        (9, 1, 8, [(0, 8, 8), (8, 9, 1)]),
        (5, 2, 2, [(0, 2, 2), (2, 4, 2), (4, 5, 2)]),
        (1, 4, 16, [(0, 1, 4)]),
    ],
)
def test_batches_above_the_profile_are_split_and_padded(count, smallest, largest, expected):
    parts = split_batch(count, smallest, largest)
    assert [(part.start, part.stop, batch) for part, batch in parts] == expected


def test_a_batch_below_the_profile_is_padded(tensorrt, toy):
    tensorrt()
    detector = load_detector(str(make(toy, EngineOptions(batch=(4, 4, 4)))))
    found = detector.detect(gray(1, 2, 3, 4, 5), [(n, n) for n in range(1, 6)])
    assert [one.labels.tolist() for one in found] == [[1], [2], [3], [4], [5]]
    assert list(detector._runs) == [4]


def test_a_graph_is_recorded_once_per_batch_size(tensorrt, toy):
    tensorrt()
    detector = load_detector(str(make(toy)))
    for percents in ([1], [2], [3, 4], [5]):
        found = detector.detect(gray(*percents), [(1, 1)] * len(percents))
        assert [one.labels.tolist() for one in found] == [[percent] for percent in percents]
    assert detector._gpu.captured == 2
    for count in range(1, MAX_RUNS + 3):
        detector.detect(gray(*range(count)), [(1, 1)] * count)
    assert list(detector._runs) == [3, 4, 5, 6]


def test_the_profile_and_the_options_reach_the_builder(tensorrt, toy):
    module = tensorrt()
    options = EngineOptions((2, 4, 16), 1.5, False, True, True)
    build_plan(toy, SIZE_HW, options, open_gpu(None))
    config = module.state.config
    assert config._profile.shapes == {
        "images": ((2, 3, 32, 64), (4, 3, 32, 64), (16, 3, 32, 64)),
        "orig_target_sizes": ((2, 2), (4, 2), (16, 2)),
    }
    assert config._limits == {"WORKSPACE": 1610612736}  # 1.5 * 2**30
    assert config._flags == {"no TF32", "VERSION_COMPATIBLE"}
    level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    assert config.hardware_compatibility_level is level


def test_trtexec_gets_the_same_options():
    onnx, engine = Path("my runs/x.onnx"), Path("x.engine")
    plain = trtexec_line(onnx, engine, (480, 640), EngineOptions())
    assert plain == (
        "trtexec '--onnx=my runs/x.onnx' --saveEngine=x.engine --stronglyTyped "
        "--minShapes=images:1x3x480x640,orig_target_sizes:1x2 "
        "--optShapes=images:1x3x480x640,orig_target_sizes:1x2 "
        "--maxShapes=images:8x3x480x640,orig_target_sizes:8x2"
    )
    options = EngineOptions((1, 1, 1), 1.5, False, True, True)
    assert trtexec_line(onnx, engine, (480, 640), options).endswith(
        "--memPoolSize=workspace:1536 --noTF32 --versionCompatible "
        "--hardwareCompatibilityLevel=ampere+"
    )


def test_timings_are_cached_per_release_and_gpu(tensorrt, toy, tmp_path, capsys):
    tensorrt("10.3.0")
    file = tmp_path / "home" / "tensorrt" / "timings-10.3.0-NVIDIA-T4.cache"
    for expected in (b"+", b"++"):  # each build extends the cache
        make(toy)
        assert file.read_bytes() == expected
    assert capsys.readouterr().err == ""
    for unfit in (b"noise", b"of another GPU"):
        file.write_bytes(unfit)
        make(toy)
        assert file.read_bytes() == b"+"
        assert "is damaged; replacing it" in capsys.readouterr().err


def test_an_engine_is_written_even_if_timings_cannot_be_saved(tensorrt, toy, tmp_path, capsys):
    tensorrt()
    (tmp_path / "home").write_text("a file where the folder should be")
    assert make(toy).is_file()
    assert (
        "Warning: timings not saved, the next build will be as slow: cannot write"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("parse", r"TensorRT 10\.3\.0 cannot read .*toy\.onnx: GridSample has no mode linear"),
        ("build", r"TensorRT 10\.3\.0 cannot build .*: could not find any implementation for node"),
    ],
)
def test_a_failed_build_gives_the_reason(tensorrt, toy, fault, sentence):
    tensorrt().state.fail = fault
    with pytest.raises(BackendError, match=sentence):
        make(toy)
    assert not toy.with_suffix(".engine").exists()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("run", "an illegal memory access"), ("context", "TensorRT gave no reason")],
)
def test_a_failed_call_gives_the_reason(tensorrt, toy, fault, reason):
    module = tensorrt()
    detector = load_detector(str(make(toy)))
    module.state.fail = fault
    with pytest.raises(BackendError, match=rf"toy\.engine failed on 1 images: {reason}"):
        detector.detect(gray(1), [(1, 1)])


def test_the_notes_describe_the_build(tensorrt, toy):
    tensorrt("11.4.0.106")
    path = make(toy, EngineOptions(batch=(1, 2, 4), tf32=False))
    assert notes_file(path).name == "toy.engine.json"
    notes = json.loads(notes_file(path).read_text())
    assert notes["tensorrt"] == "11.4.0.106"
    assert (notes["gpu"], notes["compute_capability"]) == ("NVIDIA T4", "7.5")
    assert (notes["batch"], notes["tf32"]) == ([1, 2, 4], False)
    assert notes["inputs"] == {"images": "tensor(float)", "orig_target_sizes": "tensor(int64)"}
    assert len(notes["onnx_sha256"]) == len(notes["plan_sha256"]) == 64


def test_an_engine_has_the_calibration_of_its_notes(tensorrt, toy):
    tensorrt()
    assert load_detector(str(make(toy))).calibration is None
    count = len(load_detector(str(make(toy))).names)
    given = Calibration(0.4, -0.5, (0.25,) * count, "a/data.yaml", "val", 5, 9)
    assert load_detector(str(make(toy, calibration=given))).calibration == given


@pytest.mark.parametrize(
    ("notes", "sentence"),
    [
        ({"tensorrt": "10.4.0"}, r"is for TensorRT 10\.4\.0 and 10\.3\.0 is installed; build it"),
        ({"compute_capability": "9.0", "gpu": "NVIDIA H200"}, r"capability 9\.0 \(NVIDIA H200\)"),
    ],
)
def test_an_engine_built_elsewhere_is_rejected_unless_compatible(tensorrt, toy, notes, sentence):
    tensorrt()
    with pytest.raises(BackendError, match=sentence):
        load_detector(str(make(toy, **notes)))
    options = EngineOptions(version_compatible=True, hardware_compatible=True)
    detector = load_detector(str(make(toy, options, **notes)))  # host code was allowed
    assert detector.detect(gray(7), [(1, 1)])[0].labels.tolist() == [7]


def test_an_engine_without_notes_has_the_names_of_coco(tensorrt, toy, capsys):
    tensorrt()
    path = make(toy)
    notes_file(path).unlink()
    detector = load_detector(str(path))
    assert "toy.engine.json is not beside toy.engine" in capsys.readouterr().err
    assert detector.names[5] == "bus"
    assert detector.preprocessing.size_hw == SIZE_HW
    assert len(detector.detect(gray(99), [(1, 1)])[0]) == 0
    expected = "toy.engine returned class 99: COCO's (toy.engine.json is missing) end at 79"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is damaged"),
        ("[]", "has format version None; this rtdetr reads 1"),
        ('{"rtdetr_format": 2}', "has format version 2"),
        ('{"rtdetr_format": 1, "plan_sha256": "00"}', "describes another engine than toy.engine"),
    ],
)
def test_damaged_notes_are_one_sentence(tensorrt, toy, text, sentence):
    tensorrt()
    path = make(toy)
    notes_file(path).write_text(text)
    with pytest.raises(WeightsError, match=sentence):
        load_detector(str(path))


def test_a_file_that_is_not_a_plan_is_one_sentence(tensorrt, tmp_path):
    tensorrt()
    (tmp_path / "noise.engine").write_bytes(b"no plan at all")
    with pytest.raises(WeightsError, match=r"cannot be opened by TensorRT 10\.3\.0: magic tag"):
        load_detector(str(tmp_path / "noise.engine"))


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("labels", "output0", r"output0 OUTPUT INT64\[-1, 1\]"),
        ("float[N,3,32,64]", "float[N,3,H,W]", r"images INPUT FLOAT\[-1, 3, -1, -1\]"),
    ],
)
def test_an_unknown_contract_is_rejected_with_its_tensors(
    tensorrt, fake_tensorrt, tmp_path, before, after, found
):
    tensorrt()
    text = fake_tensorrt["TOY"].replace(before, after)
    other = fake_tensorrt["save_toy"](tmp_path / "other.onnx", text)
    plan = build_plan(other, SIZE_HW, EngineOptions(), open_gpu(None))
    with pytest.raises(WeightsError, match=found):
        TensorRTDetector(plan, None, "other.engine", open_gpu(None))


def test_an_implausible_size_is_rejected_before_memory_is_allocated(
    tensorrt, fake_tensorrt, tmp_path
):
    tensorrt()
    text = fake_tensorrt["TOY"].replace("float[N,3,32,64]", "float[N,3,1000000,1000000]")
    other = fake_tensorrt["save_toy"](tmp_path / "other.onnx", text)
    plan = build_plan(other, SIZE_HW, EngineOptions(), open_gpu(None))
    with pytest.raises(WeightsError, match="takes images of 1000000x1000000 in batches of 8"):
        TensorRTDetector(plan, None, "other.engine", open_gpu(None))


def test_speed_settings_are_rejected_for_an_engine(tensorrt, toy):
    tensorrt()
    with pytest.raises(UsageError, match="fixed inside"):
        load_detector(str(make(toy)), decoder_layers=2)


def test_missing_tensorrt_is_one_sentence(toy, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    toy.with_suffix(".engine").write_bytes(b"plan")
    with pytest.raises(BackendError, match=r'not installed; pip install "rtdetr-cli\[tensorrt\]"'):
        load_detector(str(toy.with_suffix(".engine")))


def test_tensorrt_without_its_libraries_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: not found')")
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match=r"cannot be loaded: libnvinfer\.so\.10: not found"):
        open_gpu(None)


def test_an_old_tensorrt_is_rejected(tensorrt):
    tensorrt("8.6.1").__version__ = "8.5.3"
    with pytest.raises(BackendError, match=r"TensorRT 8\.5\.3 is too old; at least 8\.6 is needed"):
        open_gpu(None)


SHARED_NAMES = {
    "trt": {
        *("Builder", "BuilderFlag", "HardwareCompatibilityLevel", "ILogger", "MemoryPoolType"),
        *("NetworkDefinitionCreationFlag", "OnnxParser", "Runtime", "__version__"),
    },
    "builder": {
        *("build_serialized_network", "create_builder_config", "create_network"),
        "create_optimization_profile",
    },
    "config": {
        *("add_optimization_profile", "clear_flag", "create_timing_cache", "get_timing_cache"),
        *("hardware_compatibility_level", "set_flag", "set_memory_pool_limit", "set_timing_cache"),
    },
    "profile": {"set_shape"},
    "parser": {"get_error", "num_errors", "parse_from_file"},
    "runtime": {"deserialize_cuda_engine", "engine_host_code_allowed"},
    "engine": {
        *("create_execution_context", "get_tensor_dtype", "get_tensor_mode", "get_tensor_name"),
        *("get_tensor_profile_shape", "get_tensor_shape", "num_io_tensors"),
    },
    "_context": {"execute_async_v3", "get_tensor_shape", "set_input_shape", "set_tensor_address"},
    "flags": {"EXPLICIT_BATCH", "STRONGLY_TYPED"},  # both behind hasattr
    "BuilderFlag": {"TF32", "VERSION_COMPATIBLE"},
    "MemoryPoolType": {"WORKSPACE"},
    "HardwareCompatibilityLevel": {"AMPERE_PLUS"},
    "ILogger": {"ERROR"},
}
"""Names that TensorRT 8.6 to 11.4 share, by the variable that holds the object in our modules
(NVIDIA/TensorRT python/src of release/8.6, 10.3, 10.16, 11.1, and the documentation of 11.4)."""


@pytest.mark.parametrize("module", [reader, builder])
def test_only_names_that_all_releases_share_are_used(module):
    used: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            owner = node.value
            name = getattr(owner, "attr", getattr(owner, "id", ""))
            used.setdefault(name.replace("_engine", "engine"), set()).add(node.attr)
    for owner, names in SHARED_NAMES.items():
        assert used.get(owner, set()) <= names
    assert used["trt"]


HAS_ENGINES = torch.cuda.is_available() and importlib.util.find_spec("tensorrt") is not None


@pytest.mark.skipif(not HAS_ENGINES, reason="needs a CUDA GPU and the package tensorrt")
@pytest.mark.parametrize("batch", [(1, 1, 1), (1, 2, 4), (4, 4, 4)])
def test_on_a_gpu_an_engine_equals_onnx_runtime(toy, batch, capsys):
    path = make(toy, EngineOptions(batch=batch, tf32=False))
    images, sizes_hw = gray(11, 22, 33, 44, 55), [(10 * n, n) for n in range(1, 6)]
    detector = load_detector(str(path))
    expected = OnnxDetector(toy, "cpu").detect(images, sizes_hw)
    for given in (images, images.cuda(), images):
        for ours, theirs in zip(detector.detect(given, sizes_hw), expected, strict=True):
            assert ours.labels.tolist() == theirs.labels.tolist()
            assert ours.boxes_xyxy.tolist() == theirs.boxes_xyxy.tolist()
            torch.testing.assert_close(ours.scores, theirs.scores, atol=1e-5, rtol=0)
    assert all(one.is_cuda for one in detector.forward(images, torch.tensor(sizes_hw)))
    captured = capsys.readouterr()
    assert captured.out == ""  # TensorRT logs nothing to stdout
    assert "CUDA graph" not in captured.err
