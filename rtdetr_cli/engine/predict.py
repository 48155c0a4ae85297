"""Prediction: run a detector on images, return Results and write the run folder.

`predict` is the command; `stream_results` is for Python. Both iterate over the same outcomes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext
from functools import partial

import numpy as np

from rtdetr_cli.backends.load import Detector, load_detector, preprocessing_for
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.config.settings.track import TrackSettings
from rtdetr_cli.core.arrays import Array, HostArray
from rtdetr_cli.core.console import say, warn
from rtdetr_cli.core.detections import Detections
from rtdetr_cli.core.errors import DataError, UsageError
from rtdetr_cli.core.files import new_run_dir
from rtdetr_cli.core.image import Pixels
from rtdetr_cli.core.results import DrawStyle, Results
from rtdetr_cli.core.screen import require_windows
from rtdetr_cli.engine.exporting.runtime_cache import open_detector
from rtdetr_cli.engine.predicting.augmentation import find_variants, fuse_variants
from rtdetr_cli.engine.predicting.display import Display
from rtdetr_cli.engine.predicting.filters import Filters, find_filters
from rtdetr_cli.engine.predicting.lines import Outcome, Totals, describe, print_outcomes
from rtdetr_cli.engine.predicting.merging import merge_views
from rtdetr_cli.engine.predicting.pipeline import prepared_batches
from rtdetr_cli.engine.predicting.prepared import Prepared, prepare
from rtdetr_cli.engine.predicting.processes import predict_many
from rtdetr_cli.engine.predicting.run_files import RunFiles
from rtdetr_cli.engine.predicting.tracking import Trackers
from rtdetr_cli.engine.predicting.views import detect_views
from rtdetr_cli.engine.session.states import PredictState
from rtdetr_cli.media.draw import draw_boxes
from rtdetr_cli.media.source import ReadOptions, Source, SourceLike, open_source
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


def predict(settings: PredictSettings, trackers: Trackers | None = None) -> int:
    """Run the command: one line per image or video, or one JSON array, on stdout; log on stderr.

    Args:
        settings: of the run.
        trackers: give the detections ids (engine/track.py).

    Returns:
        The exit code: 0, or 3 if some images could not be read or a video is damaged.

    Raises:
        DataError: no image of the source could be read.
        BackendError: `show`, and there is no screen.
    """
    if settings.out is not None:
        return predict_many(settings, outcomes_of)
    if settings.show:
        require_windows()
    source = open_source(settings.source, read_options(settings))
    detector = open_detector(settings)
    say(detector.description)
    state, totals = PredictState(settings, trackers=trackers), Totals()
    try:
        with closing(_outcomes(detector, source, state)) as outcomes:
            print_outcomes(outcomes, totals, source.total, settings.json)
    except KeyboardInterrupt:  # the usual end of a camera
        _say_summary(detector, settings, totals)
        raise
    require_any(totals, source.total)
    _say_summary(detector, settings, totals)
    return DataError.exit_code if totals.errors else 0


def outcomes_of(settings: PredictSettings) -> Callable[[Source], Iterator[Outcome]]:
    """Open the detector, and return a function that detects in a source."""
    detector = open_detector(settings)
    say(detector.description)
    return lambda source: _outcomes(detector, source, PredictState(settings))


def _say_summary(detector: Detector, settings: PredictSettings, totals: Totals) -> None:
    """Print the mean time of each stage and the run folder."""
    if totals.speed:
        height, width = preprocessing_for(detector, settings.imgsz).size_hw
        means = (f"{sum_ / totals.read:.1f} ms {stage}" for stage, sum_ in totals.speed.items())
        say(f"Speed: {', '.join(means)} per image at {width}x{height}")
    if totals.save_dir:
        say(f"Results saved to {totals.save_dir}")


def stream_results(
    detector: Detector, source: SourceLike, state: PredictState, is_kept: bool = False
) -> Iterator[Results]:
    """Yield the Results of every readable image; files are written along the way.

    Args:
        detector: of any runtime.
        source: as in `open_source`.
        state: what callbacks receive.
        is_kept: the caller keeps all Results, which a live stream does not allow.

    The source is opened at once, its images are read during iteration. Unreadable images are
    named on stderr and skipped.

    Raises:
        DataError: the source does not exist or, at the end, none of its images could be read.
        UsageError: the source has another type, or is a live stream and `is_kept`.
        BackendError: `show`, and there is no screen.
    """
    if state.args.show:
        require_windows()
    opened = open_source(source, read_options(state.args))
    if is_kept and opened.is_live:
        raise UsageError("a camera or stream has no end: give stream=True and iterate")
    return _readable(detector, opened, state)


def _readable(detector: Detector, source: Source, state: PredictState) -> Iterator[Results]:
    totals = Totals()
    with closing(_outcomes(detector, source, state)) as outcomes:
        for item, outcome in outcomes:
            totals.add(item, outcome)
            if item.image is not None:
                yield outcome
            elif totals.read or source.total != 1:
                warn(item.error)
    require_any(totals, source.total)


def read_options(settings: PredictSettings) -> ReadOptions:
    """The settings of the source."""
    by_parts = settings.tiles is not None and not isinstance(settings, TrackSettings)
    return ReadOptions(settings.vid_stride, settings.stream_buffer, by_parts)


def adapt(detector: Detector, settings: PredictSettings) -> Detector:
    """A copy of the detector on another device, at another speed or precision.

    Raises:
        UsageError: not possible for an exported file, or the network has fewer layers.
        BackendError: the device, its 16-bit type or the runtime is missing.
    """
    if detector.network is None or settings.backend != "torch":
        return open_detector(settings)
    from rtdetr_cli.backends.torch import TorchDetector

    if not isinstance(detector, TorchDetector):
        return open_detector(settings)
    layers, queries = settings.decoder_layers, settings.num_queries
    return detector.adapted(settings.device, layers, queries, settings.half)


def _outcomes(
    detector: Detector, source: Source, state: PredictState
) -> Generator[Outcome, None, None]:
    """Each image with its Results, or with itself if it is unreadable, in their order."""
    settings = state.args
    filters = find_filters(detector, settings)
    files = RunFiles(partial(_open_writer, settings)) if _writes(settings) else None
    wanted = preprocessing_for(detector, settings.imgsz)
    variants = find_variants(detector, wanted.size_hw, settings.augment)
    batches = prepared_batches(
        source,
        settings.batch,
        partial(prepare, wanted=wanted, settings=settings, variants=variants),
        Prepared.num_bytes,
    )
    display = Display(_style(settings)) if settings.show else None
    state.call("on_predict_start")
    with (
        closing(files) if files else nullcontext(),
        closing(display) if display else nullcontext(),
        closing(batches),
    ):
        for batch in batches:
            state.images = [one.item for one in batch]
            state.call("on_predict_batch_start")
            readable = [one for one in batch if one.item.image is not None]
            state.results = _detect(detector, readable, filters) if readable else []
            if state.trackers is not None:
                state.trackers.update(state.images, state.results)
            state.call("on_predict_postprocess_end")
            drawn: list[Pixels | None] = [None] * len(readable)
            if display:
                drawn = display.show(state.images, state.results)
            if files and readable:  # last, so that a run that is interrupted has counted them
                clips = [one.item.clip for one in readable]
                state.save_dir = files.write(state.results, clips, drawn)
                if state.callbacks.has("on_predict_batch_end"):
                    files.finish()
            state.seen += len(batch)
            state.call("on_predict_batch_end")
            yield from zip(state.images, state.outcomes(), strict=True)
            if display and display.is_ended:
                break
    state.call("on_predict_end")


def _detect(
    detector: Detector,
    images: list[Prepared],
    filters: Filters,
) -> list[Results]:
    """Detect in all views of one batch and filter; the time of each stage is shared equally."""
    start = time.perf_counter()
    detections = detect_views(
        detector, [one.views for one in images], [one.planes for one in images], filters
    )
    detected = time.perf_counter()
    results = []
    for one, found in zip(images, detections, strict=True):
        views, fused = fuse_variants(one.views, found)
        merged = merge_views(views, [filters.above(part) for part in fused])
        rows = _as_rows(filters.choose(merged), detector)
        painter = draw_boxes if one.item.large is None else None
        results.append(Results(one.bgr, one.item.path, detector.names, rows, painter=painter))
        results[-1].frame, results[-1].time_s = one.item.frame, one.item.time_s
        results[-1].encoding = one.item.encoding
    share = 1000 / len(images)
    for result in results:
        result.speed = {
            "preprocess": sum(one.seconds for one in images) * share,
            "inference": (detected - start) * share,
            "postprocess": (time.perf_counter() - detected) * share,
        }
    return results


def _as_rows(found: Detections, detector: Detector) -> Array:
    """(N, 6) float32 rows of x1, y1, x2, y2, score, class; a tensor if the network is PyTorch's."""
    rows = np.column_stack((found.boxes_xyxy, found.scores, found.labels)).astype(np.float32)
    if detector.network is None:
        return rows.view(HostArray)
    import torch

    return torch.from_numpy(rows)


def _writes(settings: PredictSettings) -> bool:
    """Whether the run has a folder."""
    saves = (settings.save, settings.save_txt, settings.save_crop, settings.save_frames)
    saves_tracks = isinstance(settings, TrackSettings) and settings.save_mot
    return any(saves) or settings.save_json or saves_tracks


def _open_writer(settings: PredictSettings) -> RunWriter:
    """Open the run folder; on the first result only, so that no run leaves it empty."""
    return RunWriter(
        run_dir=new_run_dir(settings.project, settings.name, settings.exist_ok),
        images=settings.save,
        labels=settings.save_txt,
        scores=settings.save_conf,
        crops=settings.save_crop,
        frames=settings.save_frames,
        coco=settings.save_json,
        tracks=isinstance(settings, TrackSettings) and settings.save_mot,
        style=_style(settings),
    )


def _style(settings: PredictSettings) -> DrawStyle:
    """How images are drawn on."""
    return DrawStyle(
        boxes=settings.show_boxes,
        labels=settings.show_labels,
        conf=settings.show_conf,
        line_width=settings.line_width,
    )


def require_any(totals: Totals, sources: int | None) -> None:
    """Check that at least one image or frame could be read.

    Raises:
        DataError: none could.
    """
    if not totals.read and not totals.errors:
        raise DataError("the source holds no images")
    if not totals.read:
        several = f"none of the {totals.errors} images could be read"
        raise DataError(totals.first_error if sources == 1 else several)
