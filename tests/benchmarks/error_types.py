"""Compare our types of errors with those of tidecv on the same detections.

    python tests/benchmarks/error_types.py --peer-python PEER/bin/python [--fixtures FOLDER]

PEER has tidecv 1.0.1. It is run as it is, and with three differences of definition removed:

- it averages over classes without ground truth as well, if they have detections (COCO does not);
- its recall levels are x / 100, COCO's are np.linspace(0, 1, 101), so that a recall which is
  exactly on a level, such as 7 / 100, may reach another one;
- it takes 100 detections of an image, COCO takes 100 of an image and class.

Scores are made different by 1e-9, because equal ones are taken in another order.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
FIXTURES = {
    "cocoapi": ("instances_val2014_100.json", "instances_val2014_fakebbox100_results.json"),
    "hotcoco": ("edge_gt.json", "edge_dt.json"),
}
Result = dict[str, list[float]]


def main() -> None:
    """Print a Markdown table for each split."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--fixtures", type=Path)
    options = parser.parse_args()
    splits = {"synthetic": synthetic(0), "synthetic, 2 % crowds": synthetic(50)}
    for folder, names in FIXTURES.items() if options.fixtures else ():
        truth, rows = (json.loads((options.fixtures / folder / name).read_text()) for name in names)
        splits[f"{folder}/{names[0]}"] = truth, rows
    for name, (truth, rows) in splits.items():
        for number, row in enumerate(rows):
            row["score"] -= 1e-9 * number
        plain, alike = run_peer(options.peer_python, truth, rows)
        print_table(name, plain, alike, run_ours(truth, rows))


def print_table(name: str, plain: Result, alike: Result, ours: Result) -> None:
    """Counts, and costs in points of AP50."""
    lines = [
        f"\n{name}\n",
        "| type | count: tidecv, alike, ours | cost: tidecv, alike, ours | alike - ours |",
        "|---|---|---|---|",
    ]
    for kind in KINDS:
        (n, cost), (n_alike, cost_alike), (n_ours, cost_ours) = (
            result[kind] for result in (plain, alike, ours)
        )
        lines.append(
            f"| {kind} | {n}, {n_alike}, {n_ours} "
            f"| {cost:.4f}, {cost_alike:.4f}, {cost_ours:.4f} | {cost_alike - cost_ours:.1e} |"
        )
    sys.stdout.write("\n".join(lines) + "\n")


def synthetic(crowd_every: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """200 images of evaluator.py with 300 detections each; 0: no box is a crowd."""
    from evaluator import as_rows, as_truth, synthetic_split

    split = synthetic_split(200)
    truth = as_truth(split)
    for box in truth["annotations"]:
        box["iscrowd"] = int(crowd_every > 0 and box["id"] % crowd_every == 0)
    keys = ("image_id", "bbox", "score", "category_id")
    rows = [
        dict(zip(keys, (int(row[0]), row[1:5].tolist(), float(row[5]), int(row[6])), strict=True))
        for row in as_rows(split)
    ]
    return truth, rows


def run_ours(truth: dict[str, Any], rows: list[dict[str, Any]]) -> Result:
    """Count and cost of each type, from our evaluator."""
    import torch

    from rtdetr_cli.core.detections import Detections
    from rtdetr_cli.evaluation.coco import CocoEvaluator
    from rtdetr_cli.evaluation.errors import KINDS as MEANINGS

    numbers = [category["id"] for category in truth["categories"]]
    evaluator = CocoEvaluator(truth, numbers)
    for image in {row["image_id"] for row in rows}:
        mine = [row for row in rows if row["image_id"] == image]
        boxes = torch.tensor([row["bbox"] for row in mine], dtype=torch.float64)
        boxes[:, 2:] += boxes[:, :2]
        scores = torch.tensor([row["score"] for row in mine], dtype=torch.float64)
        labels = torch.tensor([numbers.index(row["category_id"]) for row in mine])
        evaluator.update(image, Detections(boxes, scores, labels))
    found = zip(MEANINGS, evaluator.error_costs(), strict=True)
    return {kind: [one.count, 100 * one.cost] for kind, one in found}


def run_peer(
    python: str, truth: dict[str, Any], rows: list[dict[str, Any]]
) -> tuple[Result, Result]:
    """Count and cost of each type by tidecv: as it is, and with the differences removed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "split.json"
        path.write_text(json.dumps([truth, rows]))
        words = [python, __file__, "--peer", str(path)]
        printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    plain, alike = json.loads(printed.splitlines()[-1])
    return plain, alike


def peer(path: Path) -> None:
    """In the environment of tidecv: print both results."""
    from tidecv.ap import APDataObject, ClassedAPDataObject

    truth, rows = json.loads(path.read_text())
    plain = evaluate_by_tidecv(truth, rows, max_det=100)
    present = {box["category_id"] for box in truth["annotations"] if not box.get("iscrowd")}
    APDataObject.get_ap = average_precision
    ClassedAPDataObject.get_mAP = lambda found: (
        sum(found.objs[index].get_ap() for index in present) / len(present)
    )
    alike = evaluate_by_tidecv(truth, rows, max_det=10**9)
    sys.stdout.write(json.dumps([plain, alike]) + "\n")


def evaluate_by_tidecv(truth: dict[str, Any], rows: list[dict[str, Any]], max_det: int) -> Result:
    """Count and cost of each type."""
    from tidecv import TIDE
    from tidecv.data import Data

    known, found = Data("truth", max_dets=max_det), Data("found")
    for image in truth["images"]:
        known.add_image(image["id"], str(image["id"]))
    for box in truth["annotations"]:
        add = known.add_ignore_region if box.get("iscrowd") else known.add_ground_truth
        add(box["image_id"], box["category_id"], box["bbox"], None)
    for row in rows:
        found.add_detection(row["image_id"], row["category_id"], row["score"], row["bbox"], None)
    run = TIDE().evaluate(known, found, mode=TIDE.BOX)
    costs = run.fix_main_errors()
    return {kind.short_name: [len(run.error_dict[kind]), costs[kind]] for kind in costs}


def average_precision(found: Any) -> float:
    """AP in points as COCO computes it, from the data points of tidecv."""
    if not found.num_gt_positives or not found.data_points:
        return 0.0
    points = sorted(found.data_points.values(), key=lambda point: -point[0])
    hits = np.cumsum([bool(point[1]) for point in points])
    precision = hits / np.arange(1, len(hits) + 1)
    precision = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
    reached = np.searchsorted(hits / found.num_gt_positives, np.linspace(0, 1, 101))
    return 100 * float(precision[reached].mean())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer"]:
        peer(Path(sys.argv[2]))
    else:
        main()
