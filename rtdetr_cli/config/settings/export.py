"""The keys of `rtdetr export`; modes.py has those of the other modes and lists all."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar

from rtdetr_cli.config.fields import Count, ImageSize, OneOf, Queries, Range
from rtdetr_cli.config.settings.shared import Settings
from rtdetr_cli.core.errors import UsageError

KITS = ("triton", "deepstream", "onnxruntime-cpp", "onnxruntime-python", "onnxruntime-web")
_UNTRIED = "could not be compared with PyTorch where this toolkit is made; give onnx and convert it"
NOT_WRITTEN = (
    ("tensorrt", "TensorRT is called engine"),
    ("trt", "TensorRT is called engine"),
    ("torchscript", "PyTorch deprecates TorchScript; onnx and openvino run without Python too"),
    ("coreml", "Core ML runs on macOS only, where nothing of this toolkit is tested"),
    ("edgetpu", "the Edge TPU computes in int8 only, and the decoder cannot"),
    *((one, f"{one} {_UNTRIED}") for one in ("saved_model", "pb", "tflite", "litert", "tfjs")),
    *((one, f"{one} {_UNTRIED}") for one in ("ncnn", "paddle", "mnn", "rknn", "executorch")),
)
"""Formats that other tools write, and why this one does not."""


@dataclass(frozen=True, kw_only=True)
class ExportSettings(Settings):
    """Write a detector for another runtime and compare it with PyTorch."""

    mode = "export"
    groups: ClassVar[dict[str, str]] = {
        "model": "What to write",
        "imgsz": "The network in it",
        "batch": "Batch, and engines of TensorRT",
        "verify": "Comparison with PyTorch",
    }

    model: str = "rtdetr-l.pt"
    """Weights (.pt); for an engine also an ONNX file of ours."""
    format: Annotated[str, OneOf(("onnx", "engine", "openvino"), NOT_WRITTEN)] = "onnx"
    """onnx, engine (TensorRT), which writes the ONNX file too, or openvino (a folder)."""
    output: str | None = None
    """File to write, or folder (`x_openvino_model`); None: beside the weights."""
    kit: Annotated[str, OneOf(KITS)] | None = None
    """Folder with a program that runs it: triton, deepstream, onnxruntime-cpp, -python or -web."""
    opset: Annotated[int, Range(17, 19)] = 17
    """ONNX operator set, 17 to 19; from 20 on TensorRT misreads GridSample."""

    imgsz: ImageSize | None = None
    """Input size in pixels, one number or height,width; None: the model's own."""
    decoder_layers: Count | None = None
    """Decoder layers to keep; None: all that the model runs at inference."""
    num_queries: Queries | None = None
    """Queries to select; None: the model's own."""
    half: bool = False
    """16-bit floats where they are safe; boxes, where they look and scores stay float32."""
    int8: bool = False
    """8-bit integers in backbone and encoder, calibrated on data=; the decoder stays float."""
    int8_drop: Annotated[float, Range(0, 100)] = 0.5
    """Points of AP that int8 may lose on data=; blocks stay float until it holds."""
    dynamic: bool = False
    """Leave height and width free, multiples of 32; imgsz is a default then."""
    input: Annotated[str, OneOf(("float32", "uint8"))] = "float32"
    """Images: float32 (batch,3,height,width) in 0..1, or uint8 (batch,height,width,3)."""
    postprocess: bool = True
    """Give the best 300 boxes in pixels; false: logits and boxes of every query."""
    sampler: Annotated[str, OneOf(("grid_sample", "gather"))] | None = None
    """How the decoder looks values up; None: grid_sample, for engines whichever is right."""

    batch: Annotated[int | tuple[int, int, int], Range(1, 2**16)] | None = None
    """Images per call: of an engine the most, or least,tuned,most; None: 1,1,8; of onnx all."""
    workspace: Annotated[float, Range(0.1, 10**6)] | None = None
    """Most working memory, GiB; None: all that the GPU has."""
    tf32: bool = True
    """Let float32 products run as TF32 on Ampere and later; false is exact and slower."""
    version_compatible: bool = False
    """Later releases of TensorRT can open the engine, which holds code for the CPU then."""
    hardware_compatible: bool = False
    """Other GPUs from Ampere on can run the engine, perhaps slower."""

    verify: bool = True
    """Compare the file with PyTorch on real images before saying success."""
    verify_images: Count | None = None
    """Images to compare on; None: 8, with int8 100, for AP says little of fewer."""
    data: str | None = None
    """Data set (its labels give the AP of both) or folder to compare on; None: drawn by us.
    int8 is calibrated on its train split."""
    device: str | None = None
    """Device of the comparison; None: cpu. For an engine its GPU; None: the first."""
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
        """Whether the file is there already and gets a kit."""
        is_exported = Path(self.model).suffix.lower() in {".onnx", ".engine"}
        return self.kit is not None and self.format == "onnx" and is_exported

    @property
    def batch_range(self) -> tuple[int, int, int]:
        """Least, tuned and most images in one call of an engine."""
        if self.batch is None:
            return (1, 1, 8)
        return (1, self.batch, self.batch) if isinstance(self.batch, int) else self.batch

    def _int8_reason(self) -> str | None:
        """What int8 needs, or what needs int8."""
        if not self.int8:
            return "int8_drop has no effect without int8=true" if self.int8_drop != 0.5 else None
        if self.half and self.format != "openvino":
            return "half and int8 are two precisions; give one of them, or both for openvino"
        if not self.verify:
            return "int8=true finds by comparing what may be int8, so that verify=false cannot be"
        if self.data is None:
            return (
                "int8=true needs data=, because its ranges are measured on real images of yours: "
                "a data set, whose train split is taken, or a folder"
            )
        return None

    def _engine_reason(self) -> str | None:
        """What is wrong with the keys of an engine."""
        least, tuned, most = self.batch_range
        if not least <= tuned <= most:
            return f"batch={least},{tuned},{most} must not descend; it is least,tuned,most"
        if self.device and self.device.startswith("dla"):
            return (
                f"device={self.device}: DLA has no GridSample, TopK or LayerNorm and no float32, "
                "so that it cannot run RT-DETR; give a GPU (device=0)"
            )
        reasons = {
            "tf32 has no effect with half=true, where every product is of 16 bits": (
                self.half and not self.tf32
            ),
            "dynamic has no effect on an engine, which is tuned for one size; give imgsz": (
                self.dynamic
            ),
            "input=uint8 and postprocess=false are for format=onnx, not for engines": (
                self.input == "uint8" or not self.postprocess
            ),
        }
        is_onnx = Path(self.model).suffix.lower() == ".onnx"
        keys = {"imgsz": None, "decoder_layers": None, "num_queries": None, "opset": 17}
        keys |= {"sampler": None, "half": False, "int8": False}
        for key, default in keys.items():
            reason = f"{key} is fixed inside {self.model}; give the weights (.pt) to choose it"
            reasons[reason] = is_onnx and getattr(self, key) != default
        return next((reason for reason, is_given in reasons.items() if is_given), None)

    def _kit_reason(self) -> str | None:
        """A kit that cannot run the file, or a key beside it that changes nothing."""
        if self.kit is None:
            return None
        suffix = Path(self.model).suffix.lower()
        is_engine = self.format == "engine" or suffix == ".engine"
        if is_engine and self.kit != "triton":
            return f"kit={self.kit} takes ONNX files; an engine goes with kit=triton"
        if self.format not in {"onnx", "engine"}:
            return f"no kit runs format={self.format}"
        if not self.only_kit:
            return self._kit_graph_reason()
        own = {"model", "kit", "format"}
        given = (f.name for f in fields(self) if getattr(self, f.name) != f.default)
        other = next((key for key in given if key not in own), None)
        return other and f"{other} has no effect: kit={self.kit} takes {self.model} as it is"

    def _kit_graph_reason(self) -> str | None:
        """Inputs and outputs that the kit does not feed and read; a file that exists tells them."""
        if self.input != "float32":
            return f"kit={self.kit} feeds float32; leave input={self.input} away"
        if self.kit == "deepstream" and self.postprocess:
            return "kit=deepstream needs postprocess=false: DeepStream fills one input only"
        if self.format == "onnx" and self.batch is not None:
            return f"kit={self.kit} needs a free batch; leave batch away"
        if self.kit != "deepstream" and not self.postprocess:
            return f"kit={self.kit} reads labels, boxes and scores; leave postprocess=false away"
        return None

    def _other_reason(self) -> str | None:
        """A key that belongs to engines, or to ONNX, only."""
        why = f"has no effect with format={self.format}"
        reasons = {
            f"batch=least,tuned,most {why}; give one number, or none for a free batch": (
                isinstance(self.batch, tuple)
            ),
            f"workspace {why}": self.workspace is not None,
            f"tf32 {why}, which is computed as its runtime does": not self.tf32,
            f"version_compatible {why}, which every release opens": self.version_compatible,
            f"hardware_compatible {why}, which runs everywhere": self.hardware_compatible,
        }
        if self.format == "openvino":
            defaults = {"opset": 17, "batch": None, "dynamic": False, "input": "float32"}
            for key, default in {**defaults, "postprocess": True, "sampler": None}.items():
                reasons[f"{key} {why}"] = getattr(self, key) != default

        return next((reason for reason, is_given in reasons.items() if is_given), None)
