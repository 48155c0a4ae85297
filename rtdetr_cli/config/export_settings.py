"""The keys of `rtdetr export`; settings.py has those of the other modes and lists all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from rtdetr_cli.config.fields import Count, ImageSize, OneOf, Range, Settings
from rtdetr_cli.core.errors import UsageError


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
    format: Annotated[str, OneOf(("onnx", "engine"))] = "onnx"
    """Format of the file: onnx, or engine (TensorRT), which writes the ONNX file too."""
    output: str | None = None
    """File to write; None: beside the weights."""
    opset: Annotated[int, Range(17, 19)] = 17
    """ONNX operator set, 17 to 19; from 20 on TensorRT misreads GridSample."""

    imgsz: ImageSize | None = None
    """Input size in pixels, one number or height,width; None: the model's own."""
    decoder_layers: Count | None = None
    """Decoder layers to keep; None: all that the model runs at inference."""
    num_queries: Count | None = None
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
    """Pictures: float32 (batch,3,height,width) in 0..1, or uint8 (batch,height,width,3)."""
    postprocess: bool = True
    """Give the best 300 boxes in pixels; false: logits and boxes of every query."""
    sampler: Annotated[str, OneOf(("grid_sample", "gather"))] | None = None
    """How the decoder looks values up; None: grid_sample, for engines whichever is right."""

    batch: Annotated[int | tuple[int, int, int], Range(1)] | None = None
    """Pictures per call: of an engine the most, or least,tuned,most; None: 1,1,8; of onnx all."""
    workspace: Annotated[float, Range(0.1)] | None = None
    """Most working memory, GiB; None: all that the GPU has."""
    tf32: bool = True
    """Let float32 products run as TF32 on Ampere and later; false is exact and slower."""
    version_compatible: bool = False
    """Later releases of TensorRT can open the engine, which holds code for the CPU then."""
    hardware_compatible: bool = False
    """Other GPUs from Ampere on can run the engine, perhaps slower."""

    verify: bool = True
    """Compare the file with PyTorch on real pictures before saying success."""
    verify_images: Count | None = None
    """Pictures to compare on; None: 8, with int8 100, for AP says little of fewer."""
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
        if Path(self.model).suffix.lower() == ".engine":
            raise UsageError(f"model={self.model} is an exported file; give the weights (.pt)")
        reason = self._engine_reason() if self.format == "engine" else self._onnx_reason()
        if reason:
            raise UsageError(f"export: {reason}")

    @property
    def batch_range(self) -> tuple[int, int, int]:
        """Least, tuned and most pictures in one call of an engine."""
        if self.batch is None:
            return (1, 1, 8)
        return (1, self.batch, self.batch) if isinstance(self.batch, int) else self.batch

    def _int8_reason(self) -> str | None:
        """What int8 needs, or what needs int8."""
        if not self.int8:
            return "int8_drop has no effect without int8=true" if self.int8_drop != 0.5 else None
        if self.half:
            return "half and int8 are two precisions; give one of them"
        if not self.verify:
            return "int8=true finds by comparing what may be int8, so that verify=false cannot be"
        if self.data is None:
            return (
                "int8=true needs data=, because its ranges are measured on real pictures of yours: "
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

    def _onnx_reason(self) -> str | None:
        """A key that belongs to engines only."""
        why = "has no effect with format=onnx"
        reasons = {
            f"batch=least,tuned,most {why}; give one number, or none for a free batch": (
                isinstance(self.batch, tuple)
            ),
            f"workspace {why}": self.workspace is not None,
            f"tf32 {why}, which is computed as its runtime does": not self.tf32,
            f"version_compatible {why}, which every release opens": self.version_compatible,
            f"hardware_compatible {why}, which runs everywhere": self.hardware_compatible,
        }
        return next((reason for reason, is_given in reasons.items() if is_given), None)
