"""Run TensorRT engines on torch tensors; build.py builds them.

An engine file is the plan as TensorRT serialised it, so that `trtexec --loadEngine` reads it; the
ExportNotes are beside it in `<name>.engine.json`. Inputs and outputs are those of our ONNX files.
Only calls that TensorRT 8.6 to 11.4 share are used, and flags by name only: their numbers differ
between releases.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rtdetr_cli.backends.contract import INPUTS, OUTPUTS, TOP_PAIRS
from rtdetr_cli.backends.graph_detector import OutputFilter
from rtdetr_cli.backends.notes import ExportNotes, check_format, check_size, parse_notes
from rtdetr_cli.backends.tensorrt.gpu import Gpu
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.bounded_text import parse_json, read_bounded
from rtdetr_cli.core.coco_classes import COCO_NAMES
from rtdetr_cli.core.console import warn
from rtdetr_cli.core.detections import ALL_PAIRS, Detections, Images, Selection
from rtdetr_cli.core.errors import BackendError, WeightsError
from rtdetr_cli.core.files import atomic_write
from rtdetr_cli.weights.plausible import MAX_COUNT

OLDEST = (8, 6)
MAX_RUNS = 4
"""Batch sizes with a live context; each holds the whole working memory of the engine."""
_DTYPES = {"FLOAT": torch.float32, "INT64": torch.int64, "INT32": torch.int32}
"""TensorRT before 10 converts int64 to int32."""


class TensorRTDetector:
    """A detector in an engine.

    Attributes:
        names: class index to name; COCO's if there are no notes.
        preprocessing: how images become its input; the engine fixes the size.
        description: file, runtime and GPU.
        notes: read from beside the file; None if missing.
        calibration: that of the notes.
        size_is_free: False.
        network: None; there is no PyTorch module.
        device: None; the runtime decides.
        opened_with: path and device; set by `open_engine`.
    """

    size_is_free = False
    network: None = None
    device: None = None
    opened_with: tuple[Path, str | None]

    def __init__(self, plan: bytes, notes: ExportNotes | None, name: str, gpu: Gpu) -> None:
        """Open a plan.

        Raises:
            BackendError: it was built for another TensorRT or GPU.
            WeightsError: not a plan, or its inputs and outputs are not those of our ONNX files.
        """
        self.notes = notes
        notes = notes or ExportNotes()
        _check_fit(notes, name, gpu)
        self._name, self._gpu = name, gpu
        self._engine = _deserialize(plan, bool(notes.version_compatible), name, gpu)
        self._limits, size_hw = _read_contract(self._engine, name)
        self._runs: dict[int, _Run] = {}
        self.names = notes.names or dict(COCO_NAMES)
        self.calibration = notes.calibration
        source = (
            "from its notes" if notes.names else f"COCO's ({notes_file(Path(name))} is missing)"
        )
        self._filter = OutputFilter(name, self.names, source)
        self.preprocessing = Preprocessing(size_hw, notes.preprocessing.antialias is not False)
        self.description = f"{name}, {running()}, {gpu.name}"

    def detect(
        self,
        images: Images,
        sizes_hw: list[tuple[int, int]],
        max_det: int = TOP_PAIRS,
        selection: Selection = ALL_PAIRS,
    ) -> list[Detections]:
        """Find objects.

        Args:
            images: (B, 3, H, W) float RGB in 0..1, H and W as in `preprocessing`, on any device.
            sizes_hw: (height, width) in pixels of each original image.
            max_det: most detections per image; the engine returns at most 300.
            selection: applied to these.

        Returns:
            One Detections per image.

        Raises:
            BackendError: TensorRT failed, possibly for lack of memory.
            WeightsError: the outputs are not those of a detector.
        """
        if not sizes_hw:
            return []
        sizes_wh = torch.tensor([(width, height) for height, width in sizes_hw])
        outputs = self.forward(torch.as_tensor(images), sizes_wh)
        labels, boxes, scores = (one.cpu().numpy() for one in outputs)
        rows = zip(boxes, scores, labels.astype(np.int64), sizes_hw, strict=True)
        found = [self._filter.sound(Detections(*one), size_hw) for *one, size_hw in rows]
        return [self._filter.best(one, max_det, selection) for one in found]

    def forward(self, images: Tensor, sizes_wh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The raw outputs of the engine, on the GPU.

        Args:
            images: as in `detect`; split if there are more than the engine takes in one call.
            sizes_wh: (B, 2) width and height of the original images.

        Returns:
            labels (B, R), boxes (B, R, 4) xyxy in pixels of the originals, scores (B, R).
        """
        parts = [
            self._run_for(batch)(images.detach()[part], sizes_wh[part])
            for part, batch in split_batch(len(images), *self._limits)
        ]
        labels, boxes, scores = (torch.cat(one) for one in zip(*parts, strict=True))
        return labels, boxes, scores

    def __reduce__(self) -> tuple[Callable[..., TensorRTDetector], tuple[Path, str | None]]:
        """Copies and pickles open the file again."""
        return open_engine, self.opened_with

    def _run_for(self, batch: int) -> _Run:
        """The context for one batch size; the oldest is dropped when there are MAX_RUNS."""
        if batch not in self._runs:
            if len(self._runs) == MAX_RUNS:
                del self._runs[next(iter(self._runs))]
            self._runs[batch] = _Run(self._engine, batch, self._name, self._gpu)
        return self._runs[batch]


class _Run:
    """One batch size: a context, its buffers, and the CUDA graph over them.

    A CUDA graph records addresses and shapes of its context, so each batch size needs its own.
    """

    def __init__(self, engine: Any, batch: int, name: str, gpu: Gpu) -> None:  # noqa: ANN401
        self._gpu, self._name, self._what = gpu, name, f"{name} failed on {batch} images"
        with gpu.work():
            self._context = engine.create_execution_context()
            if self._context is None:
                raise BackendError(f"{self._what}: {error_log().reason()}")
            self._buffers: dict[str, Tensor] = {}
            for tensor in (*INPUTS, *OUTPUTS):
                if tensor in INPUTS:
                    shape = (batch, *tuple(engine.get_tensor_shape(tensor))[1:])
                    self._context.set_input_shape(tensor, shape)
                shape = tuple(self._context.get_tensor_shape(tensor))
                self._check_shape(tensor, shape, batch)
                dtype = _DTYPES[engine.get_tensor_dtype(tensor).name]
                self._buffers[tensor] = torch.zeros(shape, dtype=dtype, device=gpu.device)
                self._context.set_tensor_address(tensor, self._buffers[tensor].data_ptr())
            self._enqueue()
            self._launch = gpu.capture(self._enqueue)

    def _check_shape(self, tensor: str, shape: tuple[int, ...], batch: int) -> None:
        """Check an output before memory is allocated for it.

        Raises:
            WeightsError: it is not (B, R), or (B, R, 4) for boxes, or R differs between outputs.
        """
        if tensor in INPUTS:
            return
        rows = shape[1] if len(shape) > 1 else 0
        known = {len(one[0]) for name, one in self._buffers.items() if name in OUTPUTS} | {rows}
        expected = (batch, rows, 4) if tensor == "boxes" else (batch, rows)
        if shape != expected or not 1 <= rows <= MAX_COUNT or len(known) > 1:
            raise WeightsError(
                f"{self._name} returns {tensor} {list(shape)} for {batch} images; expected "
                "labels [B, R], boxes [B, R, 4] and scores [B, R]"
            )

    def __call__(self, images: Tensor, sizes_wh: Tensor) -> list[Tensor]:
        """Labels, boxes and scores of at most `batch` images, padded by repeating the last."""
        count = len(images)
        with self._gpu.work():
            for name, values in zip(INPUTS, (images, sizes_wh), strict=True):
                buffer = self._buffers[name]
                buffer[:count].copy_(values, non_blocking=True)
                buffer[count:] = buffer[count - 1]
            self._launch()
        return [self._buffers[name][:count].clone() for name in OUTPUTS]

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._gpu.stream_handle):
            raise BackendError(f"{self._what}: {error_log().reason()}")


def split_batch(count: int, smallest: int, largest: int) -> list[tuple[slice, int]]:
    """Split a batch into parts that an engine takes; return each with its padded size."""
    starts = range(0, count, largest)
    parts = [slice(start, min(start + largest, count)) for start in starts]
    return [(part, max(smallest, part.stop - part.start)) for part in parts]


def open_engine(path: Path, device: str | None = None) -> TensorRTDetector:
    """Open an engine file and the notes beside it.

    An engine contains GPU code and may contain CPU code: open only files that you trust.

    Raises:
        BackendError: TensorRT or the GPU is missing, or the engine was built for another one.
        WeightsError: the file or its notes are damaged, or it is not a detector.
    """
    gpu = open_gpu(device)
    plan = path.read_bytes()
    detector = TensorRTDetector(plan, read_notes(path, plan), path.name, gpu)
    detector.opened_with = (path.absolute(), device)
    return detector


def save_engine(path: Path, plan: bytes, notes: ExportNotes) -> None:
    """Write the plan and its notes; the notes first: their checksum exposes an older plan."""
    text = json.dumps(notes.to_dict(), indent=2, ensure_ascii=False) + "\n"
    with atomic_write(path) as written, atomic_write(notes_file(path)) as beside:
        written.write_bytes(plan)
        beside.write_text(text, encoding="utf-8")


def notes_file(path: Path) -> Path:
    """`best.engine.json` for `best.engine`."""
    return path.with_name(f"{path.name}.json")


def read_notes(path: Path, plan: bytes) -> ExportNotes | None:
    """Read the notes of an engine; None, with a warning, if there are none, as with trtexec.

    Raises:
        WeightsError: the notes are damaged, or those of another engine.
    """
    file = notes_file(path)
    if not file.is_file():
        warn(f"{file.name} is not beside {path.name}: assuming the class names of COCO")
        return None
    try:
        values = parse_json(read_bounded(file))
    except ValueError as error:
        raise WeightsError(f"{file} is damaged: {error}") from error
    check_format(values.get("rtdetr_format") if isinstance(values, dict) else None, str(file))
    notes = parse_notes(values, file.name)
    if notes.plan_sha256 != hashlib.sha256(plan).hexdigest():
        raise WeightsError(f"{file} describes another engine than {path.name}; export it again")
    return notes


def _check_fit(notes: ExportNotes, name: str, gpu: Gpu) -> None:
    """Check that an engine was built for this TensorRT and GPU, or to be compatible.

    Raises:
        BackendError: it was built for another TensorRT or another kind of GPU.
    """
    version = tensorrt_package().__version__
    built = notes.tensorrt or version
    again = "; build it again here: `rtdetr export model=X.onnx format=engine`"
    if built.split(".")[:3] != version.split(".")[:3] and not notes.version_compatible:
        raise BackendError(f"{name} is for TensorRT {built} and {version} is installed{again}")
    capability = notes.compute_capability or gpu.capability
    if capability != gpu.capability and not notes.hardware_compatible:
        raise BackendError(
            f"{name} is for compute capability {capability} ({notes.gpu}) and this "
            f"{gpu.name} has {gpu.capability}{again}"
        )


def _deserialize(plan: bytes, has_host_code: bool, name: str, gpu: Gpu) -> Any:  # noqa: ANN401
    """Load a plan; version-compatible plans contain code for the CPU."""
    logger = error_log()
    logger.faults.clear()
    runtime = tensorrt_package().Runtime(logger)
    if has_host_code:
        runtime.engine_host_code_allowed = True
    with gpu.work():
        engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise WeightsError(f"{name} cannot be opened by {running()}: {logger.reason()}")
    return engine


def _read_contract(engine: Any, name: str) -> tuple[tuple[int, int], tuple[int, int]]:  # noqa: ANN401
    """Smallest and largest batch, and (height, width).

    Raises:
        WeightsError: inputs, outputs or size are not those that `rtdetr export` writes.
    """
    tensors = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    modes = {tensor: engine.get_tensor_mode(tensor).name for tensor in tensors}
    expected = {**dict.fromkeys(INPUTS, "INPUT"), **dict.fromkeys(OUTPUTS, "OUTPUT")}
    shapes = {tensor: tuple(engine.get_tensor_shape(tensor)) for tensor in tensors}
    kinds = {tensor: engine.get_tensor_dtype(tensor).name for tensor in tensors}
    is_known = modes == expected and set(kinds.values()) <= _DTYPES.keys()
    if not is_known or len(shapes["images"]) != 4 or min(shapes["images"][1:]) < 1:
        shown = ", ".join(f"{t} {modes[t]} {kinds[t]}{list(shapes[t])}" for t in tensors)
        raise WeightsError(
            f"{name} has {shown}; expected the contract of `rtdetr export`: images[batch, 3, "
            "height, width], orig_target_sizes[batch, 2] -> labels, boxes, scores"
        )
    batch, _, *size_hw = shapes["images"]
    smallest = largest = batch
    if batch < 1:
        (smallest, *_), _, (largest, *_) = engine.get_tensor_profile_shape("images", 0)
    check_size((size_hw[0], size_hw[1]), largest, name)
    return (max(smallest, 1), largest), (size_hw[0], size_hw[1])


def open_gpu(device: str | None) -> Gpu:
    """Open the GPU for building and running engines.

    Raises:
        BackendError: TensorRT is missing or too old, or there is no GPU.
    """
    version = tensorrt_package().__version__
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise BackendError(f"TensorRT {version} is too old; at least {oldest} is needed")
    return Gpu(device)


def tensorrt_package() -> Any:  # noqa: ANN401
    """Import TensorRT.

    Raises:
        BackendError: it, or a library that it needs, is missing.
    """
    try:
        import tensorrt
    except ModuleNotFoundError as error:
        line = 'pip install "rtdetr-cli[tensorrt]" (with CUDA 12: pip install tensorrt-cu12)'
        raise BackendError(f"TensorRT is not installed; {line}") from error
    except ImportError as error:
        raise BackendError(f"TensorRT is installed but cannot be loaded: {error}") from error
    return tensorrt


def running() -> str:
    """Name and release, for messages."""
    return f"TensorRT {tensorrt_package().__version__}"


@cache
def error_log() -> Any:  # noqa: ANN401
    """The logger of this process: TensorRT keeps the first one it receives.

    TensorRT's default logger prints to stdout, which is reserved for results.
    """
    trt = tensorrt_package()
    base: Any = trt.ILogger

    class Logger(base):  # type: ignore[misc]
        """Keep the last error."""

        def __init__(self) -> None:
            super().__init__()
            self.faults: deque[str] = deque(maxlen=1)

        def log(self, severity: Any, msg: str) -> None:  # noqa: ANN401
            """Called by TensorRT; the lower the severity, the worse."""
            if severity <= trt.ILogger.ERROR:
                self.faults.append(msg)

        def reason(self) -> str:
            """Return why the last call failed, and clear it."""
            return self.faults.pop() if self.faults else "TensorRT gave no reason"

    return Logger()
