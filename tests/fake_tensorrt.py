"""A stand-in for the package tensorrt and for a GPU, to test our own logic at that border.

It has the names that our modules may use and no others, as the sources of NVIDIA/TensorRT
(python/src, release/8.6 to release/11.1) and its documentation up to 11.4 have them, with the
numbers of each release. An engine is the ONNX file itself, run by ONNX Runtime at the addresses
that it is given.
"""

from __future__ import annotations

import ctypes
import json
from contextlib import nullcontext
from enum import Enum, IntEnum
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import parser

TOY = """<ir_version: 8, opset_import: ["" : 17]>
toy (float[N,3,32,64] images, int64[N,2] orig_target_sizes)
    => (int64[N,1] labels, float[N,1,4] boxes, float[N,1] scores) {
  one = Constant<value = int64[1] {1}>()
  hundred = Constant<value = float {100.0}>()
  mean = ReduceMean<axes = [1, 2, 3], keepdims = 0>(images)
  scores = Unsqueeze(mean, one)
  percent = Mul(scores, hundred)
  rounded = Round(percent)
  labels = Cast<to = 7>(rounded)
  sizes = Cast<to = 1>(orig_target_sizes)
  corners = Concat<axis = 1>(sizes, sizes)
  boxes = Unsqueeze(corners, one)
}"""
"""The contract of our export: score = mean of the image, label = per cent, box = w, h, w, h."""
STREAM = 7
NUMPY = {"FLOAT": np.float32, "INT64": np.int64, "INT32": np.int32}


def save_toy(path: Path, text: str = TOY, **notes: object) -> Path:
    """Write the toy with the metadata of `rtdetr export`: a class per per cent."""
    model = parser.parse_model(text)
    names = {str(index): f"{index} %" for index in range(101)}
    preprocessing = {"size_hw": [32, 64], "antialias": False}
    metadata = {"rtdetr_format": 1, "names": names, "preprocessing": preprocessing, **notes}
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    onnx.save(model, path)
    return path


class Gpu:
    """In place of backends/tensorrt/gpu.py: tensors stay on the CPU, nothing is recorded."""

    name, capability, stream_handle = "NVIDIA T4", "7.5", STREAM
    device = torch.device("cpu")

    def __init__(self, device: str | None = None) -> None:
        self.captured = 0

    def work(self):
        return nullcontext()

    def capture(self, enqueue):
        self.captured += 1
        return enqueue


def make(version: str) -> ModuleType:
    """The module `tensorrt` of one release; `state` says what happened and what is to fail."""
    major = int(version.split(".")[0])
    module = ModuleType("tensorrt")
    module.__spec__ = ModuleSpec("tensorrt", None)  # PyTorch looks for it
    module.__version__ = version
    module.state = SimpleNamespace(version=version, fail="", is_wrong=False, has_int64=major >= 10)
    typed = {8: {}, 9: {"STRONGLY_TYPED": 2}, 10: {"STRONGLY_TYPED": 1}, 11: {"STRONGLY_TYPED": 0}}
    batch = {"EXPLICIT_BATCH": 0} if major < 11 else {"PREFER_JIT_PYTHON_PLUGINS": 1}
    flag = {"TF32": 7, "VERSION_COMPATIBLE": 13 if major < 11 else 12}
    module.NetworkDefinitionCreationFlag = IntEnum("Flags", {**batch, **typed[major]})
    module.BuilderFlag = IntEnum("BuilderFlag", flag)
    module.MemoryPoolType = Enum("MemoryPoolType", ["WORKSPACE"])
    module.HardwareCompatibilityLevel = Enum("Level", ["NONE", "AMPERE_PLUS"])
    module.ILogger = ILogger
    classes = (Builder, OnnxParser, Runtime)
    for cls in classes:
        bound = type(cls.__name__, (cls,), {"state": module.state, "__slots__": ()})
        setattr(module, cls.__name__, bound)
    return module


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING = range(3)


class Builder:
    __slots__ = ("_logger",)

    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def create_network(self, flags: int = 0) -> SimpleNamespace:
        self.state.network_flags = flags
        return SimpleNamespace()

    def create_builder_config(self) -> Config:
        self.state.config = Config()
        return self.state.config

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: SimpleNamespace, config: Config):
        if self.state.fail == "build":
            self._logger.log(ILogger.WARNING, "of no importance")
            self._logger.log(ILogger.ERROR, "could not find any implementation for node /TopK")
            return None
        head = {
            "version": self.state.version,
            "profile": config._profile.shapes,
            "host_code": "VERSION_COMPATIBLE" in config._flags,
        }
        return bytearray(json.dumps(head).encode() + b"\0" + network.model)


class Config:
    __slots__ = ("_cache", "_flags", "_limits", "_profile", "hardware_compatibility_level")

    def __init__(self) -> None:
        self._flags, self._limits, self._cache = set(), {}, None

    def add_optimization_profile(self, profile: Profile) -> int:
        self._profile = profile
        return 0

    def set_memory_pool_limit(self, pool: Enum, pool_size: int) -> None:
        self._limits[pool.name] = pool_size

    def set_flag(self, flag: IntEnum) -> None:
        self._flags.add(flag.name)

    def clear_flag(self, flag: IntEnum) -> None:
        self._flags.add(f"no {flag.name}")

    def create_timing_cache(self, serialized: bytes) -> TimingCache | None:
        return None if serialized == b"noise" else TimingCache(serialized)

    def set_timing_cache(self, timings: TimingCache, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        self._cache = timings
        return timings.blob != b"of another GPU"

    def get_timing_cache(self) -> TimingCache:
        return self._cache


class TimingCache:
    def __init__(self, blob: bytes) -> None:
        self.blob = blob

    def serialize(self) -> bytearray:
        return bytearray(self.blob + b"+")


class Profile:
    def __init__(self) -> None:
        self.shapes = {}

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        smallest, tuned, largest = (np.array(shape) for shape in shapes)
        assert (smallest <= tuned).all()
        assert (tuned <= largest).all()
        self.shapes[name] = shapes


class OnnxParser:
    __slots__ = ("_network", "num_errors")

    def __init__(self, network: SimpleNamespace, logger: ILogger) -> None:
        self._network, self.num_errors = network, 0

    def parse_from_file(self, path: str) -> bool:
        self._network.model = Path(path).read_bytes()
        self.num_errors = int(self.state.fail == "parse")
        return not self.num_errors

    def get_error(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(desc=lambda: "GridSample has no mode linear")


class Runtime:
    __slots__ = ("_logger", "engine_host_code_allowed")

    def __init__(self, logger: ILogger) -> None:
        self._logger, self.engine_host_code_allowed = logger, False

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        head, _, model = plan.partition(b"\0")
        if not head.startswith(b"{"):
            self._logger.log(ILogger.ERROR, "magic tag does not match")
            return None
        facts = json.loads(head)
        if facts["host_code"] and not self.engine_host_code_allowed:
            self._logger.log(ILogger.ERROR, "host code is not allowed")
            return None
        return Engine(model, facts["profile"], self.state, self._logger)


class Engine:
    def __init__(self, model: bytes, profile, state: SimpleNamespace, logger: ILogger) -> None:
        self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        self._outputs = {value.name: value for value in self._session.get_outputs()}
        self._values = {**self._inputs, **self._outputs}
        self._profile, self._state, self._logger = profile, state, logger
        wrong = state.is_wrong  # True, or what the files that it computes wrong have in them
        self.is_wrong = wrong in model if isinstance(wrong, bytes) else wrong
        self.num_io_tensors = len(self._values)

    def get_tensor_name(self, index: int) -> str:
        return list(self._values)[index]

    def get_tensor_mode(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name="INPUT" if name in self._inputs else "OUTPUT")

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        whole = "INT64" if self._state.has_int64 else "INT32"
        kinds = {"tensor(float)": "FLOAT", "tensor(int64)": whole, "tensor(bool)": "BOOL"}
        return SimpleNamespace(name=kinds[self._values[name].type])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(side if isinstance(side, int) else -1 for side in self._values[name].shape)

    def get_tensor_profile_shape(self, name: str, index: int) -> list[list[int]]:
        assert index == 0
        return self._profile[name]

    def create_execution_context(self) -> Context | None:
        return None if self._state.fail == "context" else Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self._engine, self._shapes, self._addresses = engine, {}, {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        smallest, _, largest = np.array(self._engine._profile[name])
        assert (smallest <= shape).all()
        assert (shape <= largest).all()
        self._shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._shapes:
            return self._shapes[name]
        return (self._shapes["images"][0], *self._engine.get_tensor_shape(name)[1:])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle == STREAM
        engine = self._engine
        if engine._state.fail == "run":
            engine._logger.log(ILogger.ERROR, "an illegal memory access")
            return False
        arrays = {name: self._array(name) for name in engine._values}
        feed = {name: arrays[name] for name in engine._inputs}
        feed["orig_target_sizes"] = feed["orig_target_sizes"].astype(np.int64)
        answers = engine._session.run(list(engine._outputs), feed)
        for name, answer in zip(engine._outputs, answers, strict=True):
            arrays[name][...] = answer + (40 if engine.is_wrong and name == "boxes" else 0)
        return True

    def _array(self, name: str):
        shape, kind = self.get_tensor_shape(name), NUMPY[self._engine.get_tensor_dtype(name).name]
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        memory = (ctypes.c_byte * size).from_address(self._addresses[name])
        return np.frombuffer(memory, kind).reshape(shape)
