"""Settings of `rtdetr export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from rtdetr_cli.config.fields import Count, Family, ImageSize, OneOf, Queries, Range, field_types
from rtdetr_cli.config.settings.shared import Settings
from rtdetr_cli.core.errors import UsageError

KITS = ("triton", "deepstream", "onnxruntime-cpp", "onnxruntime-python", "onnxruntime-web")
_UNTRIED = "is not supported because its output cannot be verified; export onnx and convert it"
_COMPILED = ("imx", "axelera", "deepx", "qnn", "hailo")
NOT_WRITTEN = (
    ("tensorrt", "TensorRT is called engine"),
    ("trt", "TensorRT is called engine"),
    ("torchscript", "TorchScript is deprecated; onnx and openvino also run without Python"),
    ("coreml", "Core ML runs on macOS only, where the toolkit is not tested"),
    ("edgetpu", "the Edge TPU computes in int8 only, which the decoder does not support"),
    *((one, f"{one} {_UNTRIED}") for one in ("saved_model", "pb", "tflite", "litert", "tfjs")),
    *((one, "it is made by its vendor's compiler; export onnx for it") for one in _COMPILED),
    *((one, f"{one} {_UNTRIED}") for one in ("ncnn", "paddle", "mnn", "rknn", "executorch")),
)
"""Formats of other tools, and the reason why they are not supported."""


@dataclass(frozen=True, kw_only=True)
class ExportSettings(Settings):
    """Export a detector for another runtime and verify it against PyTorch."""

    mode = "export"
    groups: ClassVar[dict[str, str]] = {
        "model": "Model and format",
        "imgsz": "Network",
        "batch": "Batch and TensorRT engines",
        "verify": "Comparison with PyTorch",
    }

    model: str = "rtdetr-l.pt"
    """Weights (.pt) or a run folder; for an engine also an ONNX file written by rtdetr."""
    family: Family | None = None
    """dfine, deim or rtdetrv4, for weights whose tensors and file name do not say which."""
    format: Annotated[str, OneOf(("onnx", "engine", "openvino"), NOT_WRITTEN)] = "onnx"
    """onnx, engine (TensorRT; also writes the ONNX file) or openvino (a folder)."""
    output: str | None = None
    """Output file or folder (`x_openvino_model`); None: next to the weights."""
    kit: Annotated[str, OneOf(KITS)] | None = None
    """Also write a program that runs it: triton, deepstream, onnxruntime-cpp, -python or -web."""
    opset: Annotated[int, Range(17, 19)] = 17
    """ONNX opset, 17 to 19; TensorRT misreads GridSample from opset 20 on."""

    imgsz: ImageSize | None = None
    """Input size in pixels, one number or height,width; None: the model's own."""
    decoder_layers: Count | None = None
    """Number of decoder layers to keep; None: the model's own."""
    num_queries: Queries | None = None
    """Number of queries to select; None: the model's own."""
    half: bool = False
    """16-bit floats where accurate enough; boxes, sampling locations and scores stay float32."""
    int8: bool = False
    """8-bit integers in backbone and encoder, calibrated on data=; the decoder stays float."""
    int8_drop: Annotated[float, Range(0, 100)] = 0.5
    """Maximum loss of AP points on data= from int8; blocks stay float until it is met."""
    dynamic: bool = False
    """Dynamic height and width, multiples of 32; imgsz is then the default."""
    input: Annotated[str, OneOf(("float32", "uint8"))] = "float32"
    """Image input: float32 (batch,3,height,width) in 0..1, or uint8 (batch,height,width,3)."""
    postprocess: bool = True
    """Output the best 300 boxes in pixels; false: logits and boxes of every query."""
    sampler: Annotated[str, OneOf(("grid_sample", "gather"))] | None = None
    """Sampling operator of the decoder; None: grid_sample, for engines whichever is correct."""

    batch: Annotated[int | tuple[int, int, int], Range(1, 2**16)] | None = None
    """Batch size; for engines the maximum, or min,opt,max. None: 1,1,8; for onnx dynamic."""
    workspace: Annotated[float, Range(0.1, 10**6)] | None = None
    """Workspace limit in GiB; None: all GPU memory."""
    tf32: bool = True
    """Use TF32 for float32 products on Ampere and later; false: exact and slower."""
    version_compatible: bool = False
    """Make the engine loadable by later TensorRT releases; it then contains CPU code."""
    hardware_compatible: bool = False
    """Make the engine run on other GPUs from Ampere on, possibly slower."""

    verify: bool = True
    """Compare the outputs with PyTorch on real images; fail if they differ."""
    verify_images: Count | None = None
    """Number of images to compare; None: 8, with int8 100 (AP needs more images)."""
    data: str | None = None
    """Data set (reports the AP of both) or image folder to compare on; None: generated images.
    int8 calibrates on its train split."""
    download: bool | None = None
    """Download the data set if absent: true without a question, false never; None: up to 1 GB."""
    device: str | None = None
    """Device of the comparison, None: cpu; for an engine its GPU, None: the first."""
    json: bool = False
    """Print the report as JSON."""

    def __post_init__(self) -> None:
        super().__post_init__()
        reason = self._int8_reason()
        if reason:
            raise UsageError(f"export: {reason}")
        for key in ("data", "verify_images"):
            if not self.verify and getattr(self, key) is not None:
                raise UsageError(f"export: {key} has no effect with verify=false")
        if Path(self.model).suffix.lower() == ".engine" and not self.only_kit:
            raise UsageError(f"model={self.model} is an exported file; give the weights (.pt)")
        reason = self._engine_reason() if self.format == "engine" else self._other_reason()
        reason = self._kit_reason() or reason
        if reason:
            raise UsageError(f"export: {reason}")

    @property
    def only_kit(self) -> bool:
        """Whether an existing exported file only gets a kit."""
        is_exported = Path(self.model).suffix.lower() in {".onnx", ".engine"}
        return self.kit is not None and self.format == "onnx" and is_exported

    @property
    def batch_range(self) -> tuple[int, int, int]:
        """Minimum, optimum and maximum batch size of an engine."""
        if self.batch is None:
            return (1, 1, 8)
        return (1, self.batch, self.batch) if isinstance(self.batch, int) else self.batch

    def _int8_reason(self) -> str | None:
        """Explain which key int8 conflicts with or is missing."""
        if not self.int8:
            return "int8_drop has no effect without int8=true" if self.int8_drop != 0.5 else None
        if self.half and self.format != "openvino":
            return "half and int8 cannot be combined except with format=openvino; give one of them"
        if not self.verify:
            return "int8=true needs verify=true: the comparison decides which blocks become int8"
        if self.data is None:
            return (
                "int8=true needs data= to calibrate on: a data set, whose train split is used, "
                "or an image folder"
            )
        return None

    def _engine_reason(self) -> str | None:
        """Explain which key an engine cannot have."""
        least, tuned, most = self.batch_range
        if not least <= tuned <= most:
            return f"batch={least},{tuned},{most} must be in ascending order: min,opt,max"
        if self.device and self.device.startswith("dla"):
            return (
                f"device={self.device}: DLA cannot run RT-DETR, as it has no GridSample, TopK, "
                "LayerNorm or float32; give a GPU (device=0)"
            )
        reasons = {
            "tf32 has no effect with half=true, where all products are 16-bit": (
                self.half and not self.tf32
            ),
            "dynamic has no effect on an engine, which is built for one size; give imgsz": (
                self.dynamic
            ),
            "input=uint8 and postprocess=false need format=onnx": (
                self.input == "uint8" or not self.postprocess
            ),
        }
        is_onnx = Path(self.model).suffix.lower() == ".onnx"
        keys = {"imgsz": None, "decoder_layers": None, "num_queries": None, "opset": 17}
        keys |= {"sampler": None, "half": False, "int8": False}
        for key, default in keys.items():
            reason = f"{key} is fixed inside {self.model}; give the weights (.pt) to choose it"
            reasons[reason] = is_onnx and getattr(self, key) != default
        return next((reason for reason, applies in reasons.items() if applies), None)

    def _kit_reason(self) -> str | None:
        """Explain why the kit cannot run the file, or which key has no effect with it."""
        if self.kit is None:
            return None
        suffix = Path(self.model).suffix.lower()
        is_engine = self.format == "engine" or suffix == ".engine"
        if is_engine and self.kit != "triton":
            return f"kit={self.kit} takes ONNX files; for an engine give kit=triton"
        if self.format not in {"onnx", "engine"}:
            return f"there is no kit for format={self.format}"
        if not self.only_kit:
            return self._kit_graph_reason()
        own = {"model", "kit", "format"}
        default = ExportSettings()
        keys = (key for key in field_types(ExportSettings) if key not in own)
        other = next((key for key in keys if getattr(self, key) != getattr(default, key)), None)
        return other and f"{other} has no effect: kit={self.kit} uses {self.model} as it is"

    def _kit_graph_reason(self) -> str | None:
        """Explain which input or output key the kit does not support."""
        if self.input != "float32":
            return f"kit={self.kit} feeds float32; remove input={self.input}"
        if self.kit == "deepstream" and self.postprocess:
            return "kit=deepstream needs postprocess=false: DeepStream feeds one input only"
        if self.format == "onnx" and self.batch is not None:
            return f"kit={self.kit} needs a dynamic batch size; remove batch"
        if self.kit != "deepstream" and not self.postprocess:
            return f"kit={self.kit} reads labels, boxes and scores; remove postprocess=false"
        return None

    def _other_reason(self) -> str | None:
        """Explain which key needs format=engine or format=onnx."""
        why = f"has no effect with format={self.format}"
        reasons = {
            f"batch=min,opt,max {why}; give one number, or none for a dynamic batch size": (
                isinstance(self.batch, tuple)
            ),
            f"workspace {why}": self.workspace is not None,
            f"tf32 {why}; the runtime chooses": not self.tf32,
            f"version_compatible {why}, which every release can load": self.version_compatible,
            f"hardware_compatible {why}, which runs on any hardware": self.hardware_compatible,
        }
        if self.format == "openvino":
            defaults = {"opset": 17, "batch": None, "dynamic": False, "input": "float32"}
            for key, default in {**defaults, "postprocess": True, "sampler": None}.items():
                reasons[f"{key} {why}"] = getattr(self, key) != default

        return next((reason for reason, applies in reasons.items() if applies), None)
