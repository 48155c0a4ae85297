"""Prediction: run a detector on images, return Results and write the run folder.

`predict` is the command; `stream_results` is for Python. Both iterate over the same outcomes.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from rtdetr_cli.backends.load import Detector, load_detector, preprocessing_for
from rtdetr_cli.backends.torch import TorchDetector, choose_device
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.core.class_names import class_indices
from rtdetr_cli.core.console import result, result_json, say, warn
from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.files import new_run_dir
from rtdetr_cli.core.image import Pixels, resize_image, to_tensor
from rtdetr_cli.core.results import DrawStyle, Results
from rtdetr_cli.core.structures import Detections
from rtdetr_cli.engine.exporting.runtime_cache import open_detector
from rtdetr_cli.engine.session.states import PredictState
from rtdetr_cli.engine.session.thresholds import Thresholds, find_thresholds
from rtdetr_cli.media.draw import draw_boxes
from rtdetr_cli.media.source import Source, SourceImage, SourceLike, open_source
from rtdetr_cli.media.writer import RunWriter

__all__ = [
    "Detector",
    "PredictState",
    "SourceLike",
    "adapt",
    "describe",
    "load_detector",
    "predict",
    "stream_results",
]

_TOP_PAIRS = 300
"""Least number of detections requested of the network, so that `classes` can filter them."""


def predict(settings: PredictSettings) -> int:
    """Run the command: one line per image, or one JSON array, on stdout; log output on stderr.

    Returns:
        The exit code: 0, or 3 if some images could not be read.

    Raises:
        DataError: no image of the source could be read.
    """
    source = open_source(settings.source)
    detector = open_detector(settings)
    say(detector.description)
    rows: list[dict[str, Any]] = []
    speeds: list[dict[str, float]] = []
    save_dir = None
    for number, outcome in enumerate(_outcomes(detector, source, PredictState(settings)), start=1):
        rows.append(_row(outcome))
        if isinstance(outcome, Results):
            speeds.append(outcome.speed)
            save_dir = outcome.save_dir
            if not settings.json:
                result(f"image {number}/{len(source)} {describe(outcome)}")
        elif len(source) > 1:
            warn(outcome.error)
    if settings.json:
        result_json(json.dumps(rows, indent=2, ensure_ascii=False))
    require_any([row["error"] for row in rows if "error" in row], len(source))
    height, width = preprocessing_for(detector, settings.imgsz).size_hw
    stages = ", ".join(
        f"{sum(speed[stage] for speed in speeds) / len(speeds):.1f} ms {stage}"
        for stage in speeds[0]
    )
    say(f"Speed: {stages} per image at {width}x{height}")
    if save_dir:
        say(f"Results saved to {save_dir}")
    return 0 if len(speeds) == len(source) else DataError.exit_code


def stream_results(
    detector: Detector, source: SourceLike, state: PredictState
) -> Iterator[Results]:
    """Yield the Results of every readable image; files are written along the way.

    The source is opened at once, its images are read during iteration. Unreadable images are
    named on stderr and skipped.

    Raises:
        DataError: the source does not exist or, at the end, none of its images could be read.
    """
    return _readable(detector, open_source(source), state)


def _readable(detector: Detector, source: Source, state: PredictState) -> Iterator[Results]:
    errors = []
    for outcome in _outcomes(detector, source, state):
        if not isinstance(outcome, SourceImage):
            yield outcome
        else:
            errors.append(outcome.error)
            if len(source) > 1:
                warn(outcome.error)
    require_any(errors, len(source))


def adapt(detector: Detector, settings: PredictSettings) -> Detector:
    """A copy of the detector on another device, at another speed or precision.

    Raises:
        UsageError: not possible for an exported file, or the network has fewer layers.
        BackendError: the device, its 16-bit type or the runtime is missing.
    """
    if not isinstance(detector, TorchDetector) or settings.backend != "torch":
        return open_detector(settings)
    device = choose_device(settings.device) if settings.device else detector.device
    network = copy.deepcopy(detector.network)
    network.set_speed(settings.decoder_layers, settings.num_queries)
    names, preprocessing = detector.names, detector.preprocessing
    adapted = TorchDetector(network, names, preprocessing, device, half=settings.half)
    adapted.calibration = detector.calibration
    return adapted


def describe(results: Results) -> str:
    """One line: `bus.jpg: 810x1080 4 persons, 1 bus, 512.3 ms`."""
    height, width = results.orig_shape
    milliseconds = results.speed["inference"]
    return f"{results.path}: {width}x{height} {results.verbose()}{milliseconds:.1f} ms"


def _outcomes(
    detector: Detector, source: Source, state: PredictState
) -> Iterator[Results | SourceImage]:
    """Results, or the unreadable image itself, in the order of the source."""
    settings = state.args
    if settings.classes is not None:  # by index from here on
        wanted = class_indices(settings.classes, detector.names, "model")
        settings = replace(settings, classes=tuple(wanted))
    thresholds = find_thresholds(detector, settings)
    saves = settings.save or settings.save_txt or settings.save_crop
    writer: RunWriter | None = None
    images = iter(source)
    state.call("on_predict_start")
    while batch := list(islice(images, settings.batch)):
        state.images = batch
        state.call("on_predict_batch_start")
        readable = [(one.path, one.image) for one in batch if one.image is not None]
        state.results = _detect(detector, readable, settings, thresholds) if readable else []
        state.call("on_predict_postprocess_end")
        if saves and readable:
            writer = writer or _open_writer(settings)
            state.save_dir = writer.run_dir
            for results in state.results:
                writer.write(results)
        state.seen += len(batch)
        state.call("on_predict_batch_end")
        yield from state.outcomes()
    state.call("on_predict_end")


def _detect(
    detector: Detector,
    images: list[tuple[str, Pixels]],
    settings: PredictSettings,
    thresholds: Thresholds,
) -> list[Results]:
    """Resize, detect and filter one batch; the time of each stage is divided among its images."""
    wanted = preprocessing_for(detector, settings.imgsz)
    start = time.perf_counter()
    batch = to_batch([rgb for _, rgb in images], wanted)
    prepared = time.perf_counter()
    sizes_hw = [(rgb.shape[0], rgb.shape[1]) for _, rgb in images]
    detections = detector.detect(batch, sizes_hw, max(_TOP_PAIRS, settings.max_det))
    detected = time.perf_counter()
    results = []
    for (path, rgb), found in zip(images, detections, strict=True):
        bgr = np.ascontiguousarray(rgb[..., ::-1])
        rows = _as_rows(_chosen(found, settings, thresholds))
        results.append(Results(bgr, path, detector.names, rows, painter=draw_boxes))
    share = 1000 / len(images)
    for one in results:
        one.speed = {
            "preprocess": (prepared - start) * share,
            "inference": (detected - prepared) * share,
            "postprocess": (time.perf_counter() - detected) * share,
        }
    return results


def to_batch(images: list[Pixels], wanted: Preprocessing) -> torch.Tensor:
    """Resize (H, W, 3) RGB images of any size to (B, 3, H, W) float in 0..1."""
    resized = (resize_image(rgb, wanted.size_hw, wanted.antialias) for rgb in images)
    return torch.stack([to_tensor(rgb) for rgb in resized])


def _chosen(found: Detections, settings: PredictSettings, thresholds: Thresholds) -> Detections:
    """The best `max_det` detections of `classes` with a score above `conf`."""
    keep = thresholds.keep(found)
    if settings.classes is not None:
        keep &= torch.isin(found.labels, torch.tensor(settings.classes))
    return thresholds.shown(found.keep(keep.nonzero()[: settings.max_det, 0]))


def _as_rows(found: Detections) -> torch.Tensor:
    """(N, 6) rows of x1, y1, x2, y2, score, class."""
    columns = (found.boxes_xyxy, found.scores[:, None], found.labels[:, None])
    return torch.cat([column.float() for column in columns], dim=1)


def _open_writer(settings: PredictSettings) -> RunWriter:
    """Open the run folder; on the first result only, so that no run leaves it empty."""
    return RunWriter(
        run_dir=new_run_dir(settings.project, settings.name, settings.exist_ok),
        images=settings.save,
        labels=settings.save_txt,
        scores=settings.save_conf,
        crops=settings.save_crop,
        style=DrawStyle(
            boxes=settings.show_boxes,
            labels=settings.show_labels,
            conf=settings.show_conf,
            line_width=settings.line_width,
        ),
    )


def _row(outcome: Results | SourceImage) -> dict[str, Any]:
    """One image as printed by `json=true`."""
    if isinstance(outcome, SourceImage):
        return {"path": outcome.path, "error": outcome.error}
    height, width = outcome.orig_shape
    return {
        "path": outcome.path,
        "width": width,
        "height": height,
        "speed": {stage: round(value, 3) for stage, value in outcome.speed.items()},
        "detections": outcome.summary(),
    }


def require_any(errors: list[str], total: int) -> None:
    """Check that at least one image could be read.

    Raises:
        DataError: none could.
    """
    if len(errors) == total:
        raise DataError(errors[0] if total == 1 else f"none of the {total} images could be read")
