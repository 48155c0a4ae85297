"""HOTA, IDF1 and switches of `rtdetr track` on drawn sequences, beside the library used directly.

Usage: python tests/benchmarks/tracking.py [seeds]
       python tests/benchmarks/tracking.py VIDEO MODEL

Needs, in an environment of its own: pip install trackers trackeval

Twelve squares of 20 to 46 pixels move through 640 x 360 pixels for 200 frames at 25 per second,
bounce off the border, cross, and pass behind a bar of 70 pixels. They are in the ground truth while
a quarter of them can be seen. Detections are these boxes with 1.5 pixels of noise, of which 5 % are
missing; their score is 0.9 times the visible share, less up to 0.1; a second box with a score of
0.1 to 0.3 for a third of them, as the queries of RT-DETR give; and a false box with a score of 0.1
to 0.4 in 30 % of the frames. `dropped` leaves 35 % of the frames out, in gaps of up to six.
`pan` shifts everything by up to 12 pixels a frame, as a moving camera does. TrackEval (MIT)
scores the text that save_mot=true writes.

With a video there is no ground truth: the ids of `rtdetr track` are compared with those of the
library, which gets the detections of `rtdetr predict`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import supervision as sv
import torch
import trackers
from numpy.typing import NDArray
from torchvision.ops import nms
from trackeval.datasets._base_dataset import _BaseDataset
from trackeval.metrics import CLEAR, HOTA, Identity

from rtdetr_cli.config.settings.track import TrackSettings
from rtdetr_cli.core.console import result
from rtdetr_cli.core.detections import ALL_PAIRS, Detections
from rtdetr_cli.core.image import Pixels
from rtdetr_cli.core.results import Results
from rtdetr_cli.engine.predicting.filters import Filters
from rtdetr_cli.engine.predicting.library_tracker import library_options, open_trackers
from rtdetr_cli.engine.session.thresholds import Thresholds
from rtdetr_cli.media.item import Clip, SourceImage
from rtdetr_cli.media.mot_writer import MotWriter

SIZE_WH, LENGTH, FPS, OBJECTS = np.array([640, 360]), 200, 25.0, 12
BAR = (285, 355)
KINDS = {
    "bytetrack": trackers.ByteTrackTracker,
    "ocsort": trackers.OCSORTTracker,
    "botsort": trackers.BoTSORTTracker,
}
LIBRARY = {"track_high_thresh": 0.6, "new_track_thresh": 0.7}
"""The library's own thresholds; ocsort has the first only."""
Rows = NDArray[np.float64]
Tracks = dict[int, list[tuple[int, list[float]]]]
"""Id and box (left, top, width, height) of the tracks in each frame."""


class Frame(NamedTuple):
    """One frame: number from 1, (H, W, 3) pixels, ids and boxes of the truth, detections."""

    number: int
    image: Pixels
    ids: NDArray[np.int64]
    truth: Rows
    found: Rows


def draw(seed: int, pan: bool = False) -> Iterator[Frame]:
    """A sequence; the same for the same seed."""
    rng = np.random.default_rng(seed)
    side = rng.uniform(20, 46, OBJECTS)
    place = rng.uniform(0, SIZE_WH - 46, (OBJECTS, 2))
    speed = rng.uniform(-5, 5, (OBJECTS, 2))
    colors = rng.integers(60, 255, (OBJECTS, 3))
    ground = rng.integers(0, 90, (60, 100, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    for number in range(1, LENGTH + 1):
        place += speed
        over = (place < 0) | (place > SIZE_WH - side[:, None])
        speed = np.where(over, -speed, speed) + rng.normal(0, 0.15, speed.shape)
        place = place.clip(0, SIZE_WH - side[:, None])
        phase = number / 20
        shift = np.array([150 * np.sin(phase), 60 * np.cos(1.7 * phase)]) if pan else np.zeros(2)
        corners = np.concatenate([place + shift, place + shift + side[:, None]], axis=1)
        image = np.roll(ground, shift[::-1].astype(int) + 200, (0, 1))[:360, :640].copy()
        for (x1, y1, x2, y2), color in zip(corners.clip(0).astype(int), colors, strict=True):
            image[y1:y2, x1:x2] = color
        visible = _visible(corners)
        seen = np.nonzero(visible > 0.25)[0]
        yield Frame(number, image, seen, corners[seen], _detect(corners, visible, rng))


def _visible(corners: Rows) -> Rows:
    """(N,) share of each box that is inside the image and not behind the bar."""
    low, high = corners[:, :2].clip(0), np.minimum(corners[:, 2:], SIZE_WH)
    inside = (high - low).clip(0)
    behind = (np.minimum(high[:, 0], BAR[1]) - np.maximum(low[:, 0], BAR[0])).clip(0)
    area = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    return (inside[:, 0] - behind).clip(0) * inside[:, 1] / area


def _detect(corners: Rows, visible: Rows, rng: np.random.Generator) -> Rows:
    """(N, 5) detections, highest score first."""
    noisy = corners + rng.normal(0, 1.5, corners.shape)
    scores = 0.9 * visible - rng.uniform(0, 0.1, OBJECTS)
    rows = np.column_stack([noisy, scores])
    rows = rows[(visible > 0.25) & (rng.random(OBJECTS) > 0.05)]
    second = rows[rng.random(len(rows)) < 1 / 3]
    second = second + rng.normal(0, 1.5, second.shape)
    second[:, 4] = rng.uniform(0.1, 0.3, len(second))
    rows = np.vstack([rows, second])
    if rng.random() < 0.3:
        corner = rng.uniform(0, SIZE_WH - 40)
        rows = np.vstack([rows, [*corner, *(corner + 30), rng.uniform(0.1, 0.4)]])
    return rows[np.argsort(-rows[:, 4])]


def drop(frames: list[Frame], seed: int) -> list[Frame]:
    """The frames without gaps of one to six, about 35 % of them."""
    rng, kept, position = np.random.default_rng(seed), [], 0
    while position < len(frames):
        run = int(rng.integers(1, 13))
        kept += frames[position : position + run]
        position += run + int(rng.integers(1, 7))
    return kept


def ours(frames: list[Frame], settings: TrackSettings, file: Path) -> None:
    """Track and write the text, through what the command uses."""
    tracking, clip, writer = open_trackers(settings), Clip("a.mp4", FPS), MotWriter(file)
    above = Thresholds(np.full(1, 0.1, np.float32))
    filters = Filters(above, ALL_PAIRS, 300, settings.nms, settings.agnostic_nms)
    for one in frames:
        time_s = (one.number - 1) / FPS
        item = SourceImage("a.mp4", one.image, "", one.number, time_s, clip)
        labels = np.zeros(len(one.found), np.int64)
        kept = filters.choose(Detections(one.found[:, :4], one.found[:, 4], labels))
        rows = np.column_stack([kept.boxes_xyxy, kept.scores, kept.labels])
        results = Results(one.image[..., ::-1], "a.mp4", {0: "square"}, torch.tensor(rows).float())
        results.frame = one.number
        tracking.update([item], [results])
        writer.write(results)
    writer.close()


def direct(frames: list[Frame], settings: TrackSettings, file: Path, timed: bool = True) -> None:
    """The same with the library alone, and torchvision's NMS.

    Without `timed` a gap is one step, as in a loop that passes no times.
    """
    tracker = KINDS[settings.tracker](frame_rate=FPS, **library_options(settings))
    lines = []
    for one in frames:
        rows = one.found[one.found[:, 4] > 0.1].astype(np.float32)
        if settings.nms is not None:
            boxes = torch.tensor(rows)
            rows = rows[nms(boxes[:, :4], boxes[:, 4], settings.nms).numpy()].reshape(-1, 5)
        found = sv.Detections(rows[:, :4], confidence=rows[:, 4], class_id=np.zeros(len(rows), int))
        image = one.image[..., ::-1] if settings.tracker == "botsort" else None
        time_s = (one.number - 1) / FPS if timed else None
        tracked = tracker.update(found, frame=image, timestamp=time_s)
        for (x1, y1, x2, y2), track in zip(tracked.xyxy, tracked.tracker_id, strict=True):
            if track >= 0:
                place = f"{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f}"
                lines.append(f"{one.number},{track + 1},{place},1,-1,-1,-1\n")
    file.write_text("".join(lines))


def read(file: Path) -> Tracks:
    """Id and box (left, top, width, height) of each line, by frame."""
    found = defaultdict(list)
    for line in file.read_text().splitlines():
        frame, track, *values = line.split(",")
        found[int(frame)].append((int(track), [float(value) for value in values[:4]]))
    return found


def score(frames: list[Frame], file: Path) -> dict[str, float]:
    """HOTA, IDF1, MOTA in percent and the number of switches, by TrackEval."""
    tracked = read(file)
    numbers = {one: n for n, one in enumerate(sorted({t for f in tracked.values() for t, _ in f}))}
    data: dict[str, Any] = {"gt_ids": [], "tracker_ids": [], "similarity_scores": []}
    for one in frames:
        rows = tracked.get(one.number, [])
        boxes = np.array([box for _, box in rows]).reshape(-1, 4)
        truth = np.concatenate([one.truth[:, :2], one.truth[:, 2:] - one.truth[:, :2]], axis=1)
        data["gt_ids"].append(one.ids)
        data["tracker_ids"].append(np.array([numbers[track] for track, _ in rows], int))
        data["similarity_scores"].append(_BaseDataset._calculate_box_ious(truth, boxes))
    data["num_timesteps"], data["num_gt_ids"] = len(frames), OBJECTS
    data["num_tracker_ids"] = len(numbers)
    data["num_gt_dets"] = sum(map(len, data["gt_ids"]))
    data["num_tracker_dets"] = sum(map(len, data["tracker_ids"]))
    quiet = {"PRINT_CONFIG": False}
    clear = CLEAR(quiet).eval_sequence(data)
    return {
        "HOTA": 100 * float(np.mean(HOTA().eval_sequence(data)["HOTA"])),
        "IDF1": 100 * float(Identity(quiet).eval_sequence(data)["IDF1"]),
        "MOTA": 100 * float(clear["MOTA"]),
        "switches": float(clear["IDSW"]),
    }


def drawn(seeds: int) -> None:
    """Print a row for each sequence and tracker, the mean over the seeds."""
    columns = ("HOTA", "IDF1", "MOTA", "switches")
    result(f"| sequence | tracker | run as | {' | '.join(columns)} | equal |")
    result("|---|---|---|---|---|---|---|---|")
    for name in ("plain", "dropped", "pan"):
        for tracker in KINDS:
            sums: dict[str, list[dict[str, float]]] = defaultdict(list)
            equal = 0
            for seed in range(seeds):
                frames = list(draw(seed, pan=name == "pan"))
                frames = drop(frames, seed) if name == "dropped" else frames
                equal += _one(frames, tracker, sums)
            for label, rows in sums.items():
                means = [f"{np.mean([row[column] for row in rows]):.1f}" for column in columns]
                same = f"{equal}/{seeds}" if label == "rtdetr" else ""
                result(f"| {name} | {tracker} | {label} | {' | '.join(means)} | {same} |")


def _one(frames: list[Frame], tracker: str, sums: dict[str, list[dict[str, float]]]) -> bool:
    """Score one sequence in all ways; returns whether ours and the library's tracks are equal."""
    settings = TrackSettings(source="-", tracker=tracker)
    keys: dict[str, Any] = {
        k: v for k, v in LIBRARY.items() if tracker != "ocsort" or "new" not in k
    }
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{number}.txt") for number in range(5)]
        ours(frames, settings, files[0])
        direct(frames, settings, files[1])
        direct(frames, settings, files[2], timed=False)
        direct(frames, TrackSettings(source="-", tracker=tracker, **keys), files[3])
        direct(frames, TrackSettings(source="-", tracker=tracker, nms=None), files[4])
        labels = (
            "rtdetr",
            "library",
            "library, no times",
            "library, its scores",
            "library, no NMS",
        )
        for label, file in zip(labels, files, strict=True):
            sums[label].append(score(frames, file))
        return _are_equal(read(files[0]), read(files[1]))


def video(source: str, model: str) -> None:
    """Compare the ids of the command with those of the library on the detections of `predict`."""
    for tracker in KINDS:
        keys = ["gmc_method=none"] if tracker == "botsort" else []
        with tempfile.TemporaryDirectory() as folder:
            common = [f"model={model}", f"source={source}", "save=false", f"project={folder}"]
            _command("track", *common, f"tracker={tracker}", "save_mot", "conf=0.1", *keys)
            rows = json.loads(_command("predict", *common, "conf=0.1", "json=true"))
            expected = _library_on(rows, tracker)
            found = read(next(Path(folder, "track", "mot").iterdir()))
        lengths = np.bincount([track for one in found.values() for track, _ in one])[1:]
        result(f"{tracker}: {len(lengths)} tracks of {sorted(lengths.tolist())} frames")
        result(f"  equal to the library alone: {_are_equal(found, expected)}")


def _are_equal(found: Tracks, expected: Tracks) -> bool:
    """Whether frames and ids are equal, and boxes to 0.01 pixels, the digits of the text."""
    pairs = [(sorted(found[frame]), sorted(expected.get(frame, []))) for frame in found]
    return found.keys() == expected.keys() and all(
        [track for track, _ in a] == [track for track, _ in b]
        and np.allclose([box for _, box in a], [box for _, box in b], rtol=0, atol=0.011)
        for a, b in pairs
    )


def _command(*words: str) -> str:
    command = [sys.executable, "-m", "rtdetr_cli", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _library_on(rows: list[dict[str, Any]], tracker: str) -> Tracks:
    """Tracks of the library, on one box per object: torchvision's NMS of all classes at 0.7."""
    keys: dict[str, Any] = {"gmc_method": "none"} if tracker == "botsort" else {}
    options = library_options(TrackSettings(source="-", tracker=tracker, **keys))
    fps = (len(rows) - 1) / (rows[-1]["time_s"] - rows[0]["time_s"])
    alone, found = KINDS[tracker](frame_rate=fps, **options), {}
    for row in rows:
        boxes = torch.tensor([[*one["box"].values()] for one in row["detections"]]).reshape(-1, 4)
        scores = torch.tensor([one["confidence"] for one in row["detections"]])
        kept = nms(boxes, scores, 0.7)
        detections = sv.Detections(boxes[kept].numpy(), confidence=scores[kept].numpy())
        tracked = alone.update(detections, timestamp=row["time_s"])
        tracks = [
            (int(track) + 1, [float(value) for value in (x1, y1, x2 - x1, y2 - y1)])
            for (x1, y1, x2, y2), track in zip(tracked.xyxy, tracked.tracker_id, strict=True)
            if track >= 0
        ]
        if tracks:
            found[row["frame"]] = tracks
    return found


if __name__ == "__main__":
    if len(sys.argv) == 3:
        video(*sys.argv[1:])
    else:
        drawn(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
