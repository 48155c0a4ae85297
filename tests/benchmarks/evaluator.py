"""Time and memory of the evaluation of a split: ours, hotcoco, faster-coco-eval, pycocotools.

    python tests/benchmarks/evaluator.py --peer-python PEER/bin/python [--images 5000] [--rounds 3]

All read the same synthetic detections, each in its own process, in rounds of changing order.
Measured is what comes after reading: from the ground truth as a dict and the detections as arrays
to the twelve numbers. Ours also computes all else that `rtdetr val` reports: AP per class, curves
of precision, recall and F1, the confusion matrix and the best confidences; "with errors" the types
of errors, too. PEER has faster-coco-eval; without it that row is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CLASSES, DETECTIONS, BOXES_AN_IMAGE = 80, 300, 7.2
"""As COCO's val2017 (36,000 boxes in 5,000 images) and a detector of 300 queries."""
NAMES = {
    "ours": "ours, everything `val` prints and draws",
    "ours_errors": "ours, with `errors`",
    "hotcoco": "hotcoco, twelve numbers",
    "faster_coco_eval": "faster-coco-eval, twelve numbers",
    "pycocotools": "pycocotools, twelve numbers",
}
Stats = Callable[[], list[float]]


def main() -> None:
    """Print a Markdown table of medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    pythons = dict.fromkeys(NAMES, sys.executable) | {"faster_coco_eval": options.peer_python}
    names = [name for name in NAMES if pythons[name]]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "split.npz"
        np.savez(path, **synthetic_split(options.images))
        for number in range(options.rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                words = [pythons[name], __file__, "--contestant", name, str(path)]
                printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
                rows[name].append(json.loads(printed.splitlines()[-1]))
            sys.stderr.write(f"round {number + 1} of {options.rounds}\n")
    print_table(rows)


def print_table(rows: dict[str, list[dict[str, Any]]]) -> None:
    """Medians, ratios to the last contestant, and the largest difference from its numbers."""
    medians = {
        name: [statistics.median(row[key] for row in mine) for key in ("wall", "cpu", "peak_mb")]
        for name, mine in rows.items()
    }
    base, stats = list(medians.values())[-1], list(rows.values())[-1][0]["stats"]
    lines = [
        "| | seconds | of the processor | ratio | MB above the input | largest difference |",
        "|---|---|---|---|---|---|",
    ]
    for name, (wall, cpu, peak_mb) in medians.items():
        apart = np.abs(np.subtract(rows[name][0]["stats"], stats)).max()
        cells = f"{wall:.2f} | {cpu:.2f} | {cpu / base[1]:.3f} | {peak_mb:.0f} | {apart:.1e}"
        lines.append(f"| {NAMES[name]} | {cells} |")
    sys.stdout.write("\n".join(lines) + "\n")


def synthetic_split(num_images: int) -> dict[str, np.ndarray]:
    """Boxes and detections; 40 % of the detections are near a box, most of them of its class."""
    rng = np.random.default_rng(0)
    frequency = np.arange(1, CLASSES + 1) ** -0.9
    frequency /= frequency.sum()
    count, found = int(BOXES_AN_IMAGE * num_images), DETECTIONS * num_images
    images = np.sort(rng.integers(num_images, size=count))
    classes, boxes = rng.choice(CLASSES, count, p=frequency), _boxes(rng, count)

    found_in = np.repeat(np.arange(num_images), DETECTIONS)
    per_image = np.bincount(images, minlength=num_images)
    first = np.cumsum(per_image) - per_image
    near = (rng.random(found) < 0.4) & (per_image[found_in] > 0)
    target = (first[found_in] + (rng.random(found) * per_image[found_in]).astype(np.int64))[near]
    right = rng.random(len(target)) < 0.7
    labels, detections = rng.choice(CLASSES, found, p=frequency), _boxes(rng, found)
    labels[near] = np.where(right, classes[target], labels[near])
    error = rng.exponential(0.25, len(target))
    noise = 0.5 * error[:, None] * rng.normal(size=(len(target), 4))
    sizes = boxes[target, 2:]
    corners = boxes[target, :2] + noise[:, :2] * sizes
    detections[near] = np.concatenate([corners, sizes * np.exp(noise[:, 2:])], axis=1)
    scores = rng.beta(1, 30, found)
    scores[near] = np.exp(-2 * error) * rng.beta(2, 3, len(target))
    return {
        "images": images + 1,
        "classes": classes,
        "boxes_xywh": boxes,
        "found_boxes_xywh": detections.reshape(num_images, DETECTIONS, 4).astype(np.float32),
        "found_scores": scores.reshape(num_images, DETECTIONS).astype(np.float32),
        "found_labels": labels.reshape(num_images, DETECTIONS),
    }


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """(N, 4) xywh in images of 640 x 480 pixels, sizes as spread as COCO's."""
    side, aspect = np.exp(rng.normal([[3.9], [0]], [[1.0], [0.4]], (2, count)))
    sizes = np.clip(np.stack([side * aspect, side / aspect], axis=1), 2, [600, 440])
    return np.concatenate([rng.random((count, 2)) * ([640, 480] - sizes), sizes], axis=1)


def run_contestant(name: str, path: Path) -> None:
    """Read the split, evaluate once, and print seconds, memory and the twelve numbers."""
    split = dict(np.load(path))
    truth = as_truth(split)
    evaluate = globals()[f"prepare_{name}"](truth, split)
    before, start, cpu = peak_mb(), time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        stats = evaluate()
    seconds = {"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    row = {**seconds, "peak_mb": peak_mb() - before, "stats": list(map(float, stats))}
    sys.stdout.write(json.dumps(row) + "\n")


def prepare_ours(
    truth: dict[str, Any], split: dict[str, np.ndarray], errors: bool = False
) -> Stats:
    """The evaluator as `rtdetr val` uses it."""
    import torch

    from rtdetr_cli.core.detections import Detections
    from rtdetr_cli.evaluation.coco import CocoEvaluator

    xywh = torch.from_numpy(split["found_boxes_xywh"])
    xyxy = torch.cat([xywh[..., :2], xywh[..., :2] + xywh[..., 2:]], dim=-1)
    scores, labels = (
        torch.from_numpy(split["found_scores"]),
        torch.from_numpy(split["found_labels"]),
    )

    def evaluate() -> list[float]:
        evaluator = CocoEvaluator(truth, list(range(1, CLASSES + 1)))
        for index in range(len(scores)):
            evaluator.update(1 + index, Detections(xyxy[index], scores[index], labels[index]))
        metrics = evaluator.compute()
        metrics.to_dict()
        if errors:
            evaluator.error_costs()
        return list(metrics.stats.values())

    return evaluate


def prepare_ours_errors(truth: dict[str, Any], split: dict[str, np.ndarray]) -> Stats:
    """The same with the types of errors."""
    return prepare_ours(truth, split, errors=True)


def prepare_hotcoco(truth: dict[str, Any], split: dict[str, np.ndarray]) -> Stats:
    """The library that computes our twelve numbers."""
    import hotcoco

    def evaluate() -> list[float]:
        known = hotcoco.COCO(truth)
        run = hotcoco.COCOeval(known, known.load_res(as_rows(split)), "bbox")
        run.run()
        return run.stats

    return evaluate


def prepare_faster_coco_eval(truth: dict[str, Any], split: dict[str, np.ndarray]) -> Stats:
    """The C++ drop-in replacement of pycocotools."""
    from faster_coco_eval import COCO, COCOeval_faster

    return _pycocotools_like(COCO, COCOeval_faster, truth, split)


def prepare_pycocotools(truth: dict[str, Any], split: dict[str, np.ndarray]) -> Stats:
    """The reference."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return _pycocotools_like(COCO, COCOeval, truth, split)


def _pycocotools_like(coco: Any, coco_eval: Any, truth: Any, split: Any) -> Stats:
    def evaluate() -> list[float]:
        known = coco()
        known.dataset = truth
        known.createIndex()
        run = coco_eval(known, known.loadRes(as_rows(split)), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
        return run.stats[:12]

    return evaluate


def as_truth(split: dict[str, np.ndarray]) -> dict[str, Any]:
    """The ground truth in COCO's format."""
    rows = zip(split["images"], split["classes"], split["boxes_xywh"].tolist(), strict=True)
    return {
        "images": [{"id": 1 + index} for index in range(len(split["found_scores"]))],
        "categories": [{"id": 1 + index, "name": str(index)} for index in range(CLASSES)],
        "annotations": [
            {
                "id": number,
                "image_id": int(image),
                "category_id": 1 + int(label),
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for number, (image, label, box) in enumerate(rows, start=1)
        ],
    }


def as_rows(split: dict[str, np.ndarray]) -> np.ndarray:
    """(N, 7): image id, x, y, w, h, score, category id; sizes from corners, as ours."""
    low, size = np.split(split["found_boxes_xywh"], 2, axis=-1)
    boxes = np.concatenate([low.astype(np.float64), (low + size).astype(np.float64) - low], -1)
    image_ids = np.repeat(np.arange(len(boxes)) + 1, DETECTIONS)
    scores, category_ids = split["found_scores"].ravel(), split["found_labels"].ravel() + 1
    return np.column_stack([image_ids, boxes.reshape(-1, 4), scores, category_ids])


def peak_mb() -> float:
    """The largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--contestant"]:
        run_contestant(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
