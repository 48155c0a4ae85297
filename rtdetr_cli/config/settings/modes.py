"""Every key that a command knows: typed, documented, checked.

The source of the command line, Python, cfg/*.yaml, docs/settings.md. None: the toolkit chooses.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from rtdetr_cli.config.fields import (
    YAML_SUFFIXES,
    Batch,
    Count,
    CountFromZero,
    Fraction,
    ImageSize,
    NonNegative,
    OneOf,
    Queries,
    Range,
    Seconds,
    Settings,
    Workers,
)
from rtdetr_cli.config.model_path import refuse_runtime_keys
from rtdetr_cli.config.settings.benchmark import BenchmarkSettings
from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.config.train_rules import refuse_without_effect
from rtdetr_cli.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Settings):
    """Train or fine-tune a detector."""

    mode = "train"
    groups: ClassVar[dict[str, str]] = {
        "model": "What to train",
        "epochs": "How long, how large",
        "device": "Machine",
        "project": "Run folder and output",
        "optimizer": "Optimizer (None: from the architecture's recipe and the length of the run)",
        "num_denoising": "Denoising",
        "photometric": "Augmentation (None: from the recipe)",
    }

    model: str = "rtdetr-l.pt"
    """Weights to fine-tune (.pt) or an architecture (.yaml)."""
    data: str | None = None
    """Data set: YAML, folder or COCO json; needed unless a run is resumed."""
    pretrained: str | None = None
    """Start of a .yaml architecture: weights, or `backbone` (ImageNet's); None: from scratch."""
    resume: bool | str = False
    """Continue a run that was stopped: true for the newest, or the path of its last.pt."""
    recipe: str | None = None
    """Settings to start from: a name of cfg/recipes or a .yaml; other keys win over it."""
    freeze: str | None = None
    """Parts not to train: number of leading backbone stages, backbone, or names; 0 none at all."""
    classes: tuple[CountFromZero, ...] | None = None
    """Class indices to train and validate on, for example 0,2,5; None: all."""
    single_cls: bool = False
    """Treat all classes as one, named object."""
    fraction: Annotated[float, Range(0.001, 1)] = 1.0
    """Share of the training images to use, drawn by the seed."""

    epochs: Count = 72
    """Passes over the training images."""
    time: Annotated[float, Range(0, 10**6)] | None = None
    """Hours that the run may take: sets epochs, and with them the schedule, by their pace."""
    patience: CountFromZero = 0
    """Epochs without a better AP after which the run ends; 0 is never."""
    batch: Annotated[int, Range(1, 2**16, besides=-1)] = 16
    """Images per batch, shared by all devices; -1: as many as fit the memory of one CUDA device."""
    accumulate: Count = 1
    """Batches whose gradients make one step: batch=4 accumulate=4 learns as batch=16."""
    imgsz: ImageSize = 640
    """Input size in pixels, one number or height,width; multiples of 32."""
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    """Start of every random generator."""

    device: str | None = None
    """cpu, cuda, cuda:1, mps, 0, or 0,1 to train on both; None: cuda, then mps, then cpu."""
    workers: Workers | None = None
    """Processes that load images for each device, 0 is none; None: one per core, at most 4."""
    cache: Annotated[str, OneOf(("off", "ram", "disk"))] = "off"
    """Keep decoded training images in memory (ram) or in RTDETR_HOME/cache (disk); off: decode."""
    amp: Annotated[str, OneOf(("auto", "bf16", "fp16", "off"))] = "auto"
    """Precision of the network, boxes and loss are float32: auto takes bf16 or fp16 where fast."""
    compile: bool = False
    """Compile backbone and encoder (torch.compile): minutes at the first step, for long runs."""

    project: str = "runs"
    """Folder of all runs."""
    name: str = "train"
    """Folder of this run; a number is added where it exists."""
    exist_ok: bool = False
    """Write into an existing run folder."""
    val_every: Count = 1
    """Validate after every so many epochs, and after the last one."""
    save_steps: Count = 1000
    """Save all that resuming needs after every so many steps, and after each epoch."""
    save_period: CountFromZero = 0
    """Keep the weights of every so many epochs as epochN.pt; 0 keeps best.pt and last.pt only."""
    plots: bool = True
    """Draw curves and sample batches into the run folder."""
    json: bool = False
    """Print the final metrics as JSON."""
    logger: tuple[Annotated[str, OneOf(("tensorboard", "wandb", "mlflow"))], ...] | None = None
    """Who also gets each epoch's numbers: tensorboard, wandb, mlflow, or several of them."""

    optimizer: Annotated[str, OneOf(("adamw", "muon", "sgd"))] = "adamw"
    """adamw, muon (for the linear layers, AdamW for the rest) or sgd (needs lr)."""
    lr: NonNegative | None = None
    """Learning rate of everything but the backbone."""
    backbone_lr: NonNegative | None = None
    """Learning rate of the backbone."""
    lr_scale: NonNegative = 1.0
    """Multiplies the official lr and backbone_lr that a pretrained model gets where left open."""
    weight_decay: NonNegative = 1e-4
    """Decay of the weights; norms have none."""
    warmup_steps: CountFromZero | None = None
    """Steps of linear warm-up."""
    schedule: Annotated[str, OneOf(("constant", "cosine", "flat_cosine"))] | None = None
    """Learning rate after the warm-up: constant, cosine (to 1 %) or flat_cosine (to a half)."""
    clip_norm: NonNegative = 0.1
    """Largest norm of the gradient; 0 turns clipping off."""
    ema_decay: Fraction | None = None
    """Decay of the moving average of the weights; 0 turns it off."""
    ema_ramp: Count | None = None
    """Steps over which the decay grows to its full value."""
    loss: Annotated[str, OneOf(("vfl", "mal"))] = "vfl"
    """Classification loss: varifocal, or DEIM's matchability-aware."""

    num_denoising: Annotated[int, Range(0, 10_000)] = 100
    """Denoising queries, shared by all groups; 0 turns denoising off."""
    label_noise: Fraction = 0.5
    """Half of this share of the denoising labels is drawn anew."""
    box_noise: NonNegative = 1.0
    """Shift of denoising boxes, in half sizes of the box."""

    photometric: Fraction | None = None
    """Probability of changing brightness, contrast, saturation and hue."""
    zoom_out: Fraction | None = None
    """Probability of placing the image on a canvas of up to four times its sides."""
    iou_crop: Fraction | None = None
    """Probability of a crop that keeps an overlap with a box."""
    flip: Fraction = 0.5
    """Probability of a left-right flip."""
    multi_scale: bool | None = None
    """Draw the input size of each batch from 0.75 to 1.25 times imgsz."""
    clean_epochs: CountFromZero | None = None
    """Last epochs without strong augmentation and multi-scale."""
    mosaic: Fraction = 0.0
    """Probability of four images in one, in place of zoom-out and IoU crop (DEIM)."""
    mixup: Fraction = 0.0
    """Probability that the images of a batch are laid over one another, two and two (DEIM)."""
    dense_epochs: tuple[CountFromZero, CountFromZero] | None = None
    """Epochs after which mosaic and mixup begin (no strong augmentation before) and end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.data and not self.resume:
            raise UsageError("train needs data=; `rtdetr train --help` lists all keys")
        if self.pretrained and Path(self.model).suffix not in YAML_SUFFIXES:
            raise UsageError(
                f"train: pretrained={self.pretrained} has no effect with model={self.model},"
                " which brings its own weights; give an architecture (.yaml) as model"
            )
        refuse_without_effect(self)


@dataclass(frozen=True, kw_only=True)
class ValSettings(Settings):
    """Measure a detector: the twelve COCO numbers and a table per class."""

    mode = "val"
    groups: ClassVar[dict[str, str]] = {
        "model": "What to measure",
        "imgsz": "How to run it",
        "project": "Run folder and output",
    }

    model: str = "rtdetr-l.pt"
    """Weights (.pt) or an exported file (.onnx, .engine, x_openvino_model)."""
    data: str
    """Data set: YAML, folder or COCO json."""
    split: Annotated[str, OneOf(("train", "val", "test"))] = "val"
    """Which part of the data set: train, val or test."""
    classes: tuple[CountFromZero, ...] | None = None
    """Class indices to measure, for example 0,2,5; None: all."""
    single_cls: bool = False
    """Treat all classes as one, as in a training with single_cls."""

    imgsz: ImageSize | None = None
    """Input size in pixels, one number or height,width; None: the model's own."""
    batch: Batch = 16
    """Images per step."""
    device: str | None = None
    """cpu, cuda, cuda:1, mps or 0; None: cuda, then mps, then cpu."""
    workers: Workers | None = None
    """Processes that load images, 0 is none beside the main one; None: one per core, at most 4."""
    conf: Fraction = 0.0
    """Lowest score that counts; above 0 AP falls."""
    max_det: Count = 300
    """Most detections per image."""
    decoder_layers: Count | None = None
    """Decoder layers to run, fewer is faster; None: all that the model runs at inference."""
    num_queries: Queries | None = None
    """Queries to select, fewer is faster; None: the model's own."""
    half: bool = False
    """16-bit floats, boxes in float32: float16 on CUDA, bfloat16 on CPUs that have it."""
    backend: Annotated[str, OneOf(("torch", "auto", "onnx", "openvino"))] = "torch"
    """What weights (.pt) run in on a CPU: torch, onnx, openvino; auto takes the fastest there."""
    timeout: Seconds | None = None
    """Seconds that an exported file may take for an image before it is stopped; None: no limit."""

    project: str = "runs"
    """Folder of all runs."""
    name: str = "val"
    """Folder of this run; a number is added where it exists."""
    exist_ok: bool = False
    """Write into an existing run folder."""
    save_json: bool = False
    """Write the detections as COCO json."""
    plots: bool = True
    """Draw curves and confusion matrices into the run folder."""
    json: bool = False
    """Print the metrics as JSON."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_runtime_keys(self.mode, self.model, self.half, self.backend, self.timeout)


@dataclass(frozen=True, kw_only=True)
class PredictSettings(Settings):
    """Detect objects in pictures."""

    mode = "predict"
    groups: ClassVar[dict[str, str]] = {
        "model": "What to run on what",
        "imgsz": "How to run it",
        "save": "What to write",
        "show_labels": "How boxes look",
        "project": "Run folder",
    }

    model: str = "rtdetr-l.pt"
    """Weights (.pt) or an exported file (.onnx, .engine, x_openvino_model)."""
    source: str
    """Picture, folder, glob pattern or .txt list."""

    imgsz: ImageSize | None = None
    """Input size in pixels, one number or height,width; None: the model's own."""
    conf: Fraction = 0.25
    """Lowest score that is shown."""
    max_det: Count = 300
    """Most detections per picture."""
    classes: tuple[CountFromZero, ...] | None = None
    """Class indices to keep, for example 0,2,5; None: all."""
    batch: Batch = 1
    """Pictures per step."""
    device: str | None = None
    """cpu, cuda, cuda:1, mps or 0; None: cuda, then mps, then cpu."""
    decoder_layers: Count | None = None
    """Decoder layers to run, fewer is faster; None: all that the model runs at inference."""
    num_queries: Queries | None = None
    """Queries to select, fewer is faster; None: the model's own."""
    half: bool = False
    """16-bit floats, boxes in float32: float16 on CUDA, bfloat16 on CPUs that have it."""
    backend: Annotated[str, OneOf(("torch", "auto", "onnx", "openvino"))] = "torch"
    """What weights (.pt) run in on a CPU: torch, onnx, openvino; auto takes the fastest there."""
    timeout: Seconds | None = None
    """Seconds that an exported file may take for an image before it is stopped; None: no limit."""

    save: bool = True
    """Write pictures with boxes drawn."""
    save_txt: bool = False
    """Write class x y w h as YOLO labels."""
    save_conf: bool = False
    """Add the score to each line of save_txt."""
    save_crop: bool = False
    """Write what is inside each box as a picture."""
    json: bool = False
    """Print the detections as JSON."""

    show_labels: bool = True
    """Write class names at the boxes."""
    show_conf: bool = True
    """Write scores at the boxes."""
    line_width: Annotated[int, Range(1, 1000)] | None = None
    """Width of the boxes' lines, pixels; None: from the size of the picture."""

    project: str = "runs"
    """Folder of all runs."""
    name: str = "predict"
    """Folder of this run; a number is added where it exists."""
    exist_ok: bool = False
    """Write into an existing run folder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.save_conf and not self.save_txt:
            raise UsageError("predict: save_conf has no effect without save_txt")
        refuse_runtime_keys(self.mode, self.model, self.half, self.backend, self.timeout)


@dataclass(frozen=True, kw_only=True)
class InfoSettings(Settings):
    """Say what a model is made of: layers, parameters, GFLOPs, classes."""

    mode = "info"
    groups: ClassVar[dict[str, str]] = {"model": "What to look at"}

    model: str = "rtdetr-l.pt"
    """Weights (.pt), an architecture (.yaml) or an exported file."""
    imgsz: ImageSize | None = None
    """Input size that GFLOPs are counted at; None: the model's own."""
    json: bool = False
    """Print as JSON."""


@dataclass(frozen=True, kw_only=True)
class ConvertSettings(Settings):
    """Turn a checkpoint of any family into ours, or ours into another's."""

    mode = "convert"
    groups: ClassVar[dict[str, str]] = {"model": "What to convert", "format": "What to write"}

    model: str
    """Checkpoint: ours, official PyTorch, Ultralytics or Hugging Face."""

    format: Annotated[str, OneOf(("rtdetr", "official", "hf", "safetensors"))] = "rtdetr"
    """rtdetr: our .pt; official: lyuwenyu's v2 .pth; hf: a folder for transformers; safetensors."""
    out: str | None = None
    """File or folder to write; None: the model's name in the current folder."""


@dataclass(frozen=True, kw_only=True)
class CheckSettings(Settings):
    """Look for what is wrong with a data set."""

    mode = "check"
    groups: ClassVar[dict[str, str]] = {"data": "What to check"}

    data: str
    """Data set: YAML, folder or COCO json."""
    json: bool = False
    """Print the findings as JSON."""


@dataclass(frozen=True, kw_only=True)
class ModelsSettings(Settings):
    """List the published weights: accuracy, licence, and whether they are on this machine."""

    mode = "models"
    groups: ClassVar[dict[str, str]] = {"json": "Output"}

    json: bool = False
    """Print as JSON, with addresses and paths."""


@dataclass(frozen=True, kw_only=True)
class EnvSettings(Settings):
    """Say what this machine has: CPU, cores, devices, runtimes, cache; for a bug report."""

    mode = "env"
    groups: ClassVar[dict[str, str]] = {"json": "Output"}

    json: bool = False
    """Print as JSON."""


MODES: dict[str, type[Settings]] = {
    cls.mode: cls
    for cls in (
        TrainSettings,
        ValSettings,
        PredictSettings,
        ExportSettings,
        BenchmarkSettings,
        InfoSettings,
        ConvertSettings,
        CheckSettings,
        ModelsSettings,
        EnvSettings,
    )
}


def size_hw(imgsz: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width from the key `imgsz`."""
    return (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
