"""Export: writes a network for another runtime and compares the two before it says success.

The file gets its name only if it answers as PyTorch does; the formats stand in backends/.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rtdetr_cli.backends.load import Detector, load_detector, preprocessing_for
from rtdetr_cli.backends.onnx import OnnxDetector, write_onnx
from rtdetr_cli.backends.torch import TorchDetector
from rtdetr_cli.config.fields import YAML_SUFFIXES
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.config.settings import ExportSettings
from rtdetr_cli.core.console import result, say, warn
from rtdetr_cli.core.errors import BackendError, UsageError
from rtdetr_cli.core.files import atomic_write
from rtdetr_cli.core.image import IMAGE_SUFFIXES, Pixels, read_image, resize_image, to_tensor
from rtdetr_cli.core.structures import Detections
from rtdetr_cli.data.shapes import draw_picture
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.weights.store import resolve_weights

NUM_PICTURES = 8
BATCH = 3
"""Does not divide the number of pictures, so that two sizes of a batch are run."""
EDGE_TOLERANCE = 1 / 640
"""Largest distance between two edges that match, in the picture's longer side."""
SCORE_TOLERANCE = 0.01
MIN_MATCHED = 0.99
"""Least share that must match; the last few of 300 may be others where scores are all but equal."""


@dataclass(frozen=True)
class Agreement:
    """How nearly two detectors answer the same.

    Attributes:
        pictures: number of pictures that both have seen.
        matched: share of the detections, weighted by score, that have a partner of the same class
            at the same place with the same score; 0 where answers are no numbers.
        box_drift_px: largest distance between the edges of partners, pixels of the picture.
        score_drift: largest difference between the scores of partners.
    """

    pictures: int
    matched: float
    box_drift_px: float
    score_drift: float

    @property
    def passes(self) -> bool:
        """Whether the exported file may be used."""
        return self.matched >= MIN_MATCHED

    def __str__(self) -> str:
        return (
            f"{self.matched:.2%} of the detections on {self.pictures} pictures match, boxes within "
            f"{self.box_drift_px:.3g} px, scores within {self.score_drift:.2g}"
        )


def export(settings: ExportSettings) -> Path:
    """Write a file for another runtime.

    Args:
        settings: every key of `rtdetr export`.

    Returns:
        The file.

    Raises:
        UsageError: the model is no checkpoint, or the output has another suffix.
        BackendError: a package is missing, or the file does not answer as PyTorch does; it is
            then kept as `<name>.failed.onnx`.
    """
    device = settings.device or "cpu"
    detector = load_detector(settings.model, device, settings.decoder_layers, settings.num_queries)
    if not isinstance(detector, TorchDetector):
        raise UsageError(f"model={settings.model} is an exported file; give the weights (.pt)")
    preprocessing = preprocessing_for(detector, settings.imgsz)
    path = _output(settings)
    _refuse_engine(settings, path, preprocessing)
    pictures = find_pictures(settings.data) if settings.verify else []
    say(f"{detector.description}; tracing takes a minute")
    network, names = detector.network, detector.names
    agreement = None
    with atomic_write(path) as temporary:
        nodes = write_onnx(temporary, network, names, preprocessing, settings.opset)
        if settings.verify:
            reference = TorchDetector(network, names, preprocessing, detector.device, fused=False)
            agreement = compare(reference, OnnxDetector(temporary, device), pictures)
            keep_apart_if_wrong(agreement, temporary, path)
    _report(settings, path, nodes, agreement)
    return path


def keep_apart_if_wrong(agreement: Agreement, written: Path, path: Path) -> None:
    """Give a file that answers otherwise than PyTorch a name that nobody takes for a success.

    Raises:
        BackendError: it does; `path` is not written.
    """
    if not agreement.passes:
        failed = written.replace(path.with_suffix(".failed.onnx"))
        raise BackendError(f"the file answers otherwise than PyTorch: {agreement}; see {failed}")


def _output(settings: ExportSettings) -> Path:
    """Beside the weights; for an architecture, which stands in the package, in this folder."""
    if settings.output is not None:
        path = Path(settings.output).expanduser()
        if path.suffix != ".onnx":
            raise UsageError(f"output={settings.output} must end in .onnx")
        return path
    if Path(settings.model).suffix in YAML_SUFFIXES:
        return Path(Path(settings.model).stem + ".onnx")
    return resolve_weights(settings.model).with_suffix(".onnx")


def _refuse_engine(settings: ExportSettings, path: Path, preprocessing: Preprocessing) -> None:
    """TensorRT is left to its own tool.

    Raises:
        BackendError: with the command that builds an engine from the ONNX file.
    """
    if settings.format != "engine":
        return
    height, width = preprocessing.size_hw
    shapes = " ".join(
        f"--{kind}Shapes=images:{batch}x3x{height}x{width},orig_target_sizes:{batch}x2"
        for kind, batch in (("min", 1), ("opt", 1), ("max", 8))
    )
    raise BackendError(
        f"format=engine is not built by this version; export format=onnx, then run `trtexec "
        f"--onnx={path} --saveEngine={path.with_suffix('.engine')} {shapes}`"
    )


def find_pictures(data: str | None) -> list[Pixels]:
    """A few pictures to compare on: of a data set's val split, of a folder, or drawn by us."""
    if data is None:
        drawn = (draw_picture(np.random.default_rng(n), 480)[0] for n in range(NUM_PICTURES))
        # Not all square: otherwise exchanged width and height would go unnoticed.
        return [picture[: 480 - 24 * n] for n, picture in enumerate(drawn)]
    folder = Path(data).expanduser()
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        paths = [record.path for record in open_split(load_data(data), "val").records]
    step = -(-len(paths) // NUM_PICTURES)
    return [read_image(path) for path in paths[::step]]


def compare(reference: Detector, exported: Detector, pictures: list[Pixels]) -> Agreement:
    """Run both on the same pictures and match their answers one to one."""
    matched = total = box_drift = score_drift = 0.0
    for start in range(0, len(pictures), BATCH):
        batch = pictures[start : start + BATCH]
        sizes_hw = [(picture.shape[0], picture.shape[1]) for picture in batch]
        images = torch.stack([_prepare(picture, reference.preprocessing) for picture in batch])
        answers = (detector.detect(images, sizes_hw) for detector in (reference, exported))
        for ours, theirs, size_hw in zip(*answers, sizes_hw, strict=True):
            pairs = match(ours, theirs, EDGE_TOLERANCE * max(size_hw))
            mine, other = ours.keep(pairs[0]), theirs.keep(pairs[1])
            matched += float(mine.scores.sum() + other.scores.sum())
            total += float(ours.scores.sum() + theirs.scores.sum())
            box_drift = max(box_drift, _largest(mine.boxes_xyxy - other.boxes_xyxy))
            score_drift = max(score_drift, _largest(mine.scores - other.scores))
    share = matched / total
    return Agreement(len(pictures), share if math.isfinite(share) else 0.0, box_drift, score_drift)


def match(ours: Detections, theirs: Detections, tolerance_px: float) -> tuple[Tensor, Tensor]:
    """Indices of partners: same class, all edges and the score within the tolerance.

    Not by rank: detections with nearly equal scores may stand in another order.
    """
    edges = (ours.boxes_xyxy[:, None] - theirs.boxes_xyxy).abs().amax(-1) / tolerance_px
    scores = (ours.scores[:, None] - theirs.scores).abs() / SCORE_TOLERANCE
    is_near = (ours.labels[:, None] == theirs.labels) & (edges <= 1) & (scores <= 1)
    cost = (edges + scores).where(is_near, 1e3)
    rows, columns = map(torch.as_tensor, linear_sum_assignment(cost.numpy()))
    is_pair = is_near[rows, columns]
    return rows[is_pair], columns[is_pair]


def _prepare(picture: Pixels, preprocessing: Preprocessing) -> Tensor:
    return to_tensor(resize_image(picture, preprocessing.size_hw, preprocessing.antialias))


def _largest(difference: Tensor) -> float:
    return float(difference.abs().max()) if difference.numel() else 0.0


def _report(settings: ExportSettings, path: Path, nodes: int, agreement: Agreement | None) -> None:
    """What was written and how it compares, on stdout."""
    megabytes = path.stat().st_size / 1e6
    if agreement is None:
        warn("verify=false: the file was not compared with PyTorch")
    if settings.json:
        compared = asdict(agreement) if agreement else None
        facts = {"path": str(path), "format": settings.format, "opset": settings.opset}
        result(json.dumps({**facts, "megabytes": megabytes, "nodes": nodes, "agreement": compared}))
        return
    result(f"{path}: opset {settings.opset}, {nodes} nodes, {megabytes:.1f} MB")
    if agreement:
        result(str(agreement))
