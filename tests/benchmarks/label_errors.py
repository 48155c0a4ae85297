"""How many planted label errors `rtdetr check model=` finds: precision and recall of its list.

Usage: python tests/benchmarks/label_errors.py DATA_FOLDER WEIGHTS [split] [imgsz] [seeds]

DATA_FOLDER is a YOLO data set with data.yaml. In copies of the split, 5 % of the labels are
spoiled, a third each: class swapped, box removed, box shifted (to IoU 0.3 to 0.6 with where it
was); and as many boxes as of each kind are added where no label is (IoU below 0.2). The model runs
once. A suspicion counts as hit if it is at a spoiled label, whatever its kind, or for a removed box
at IoU 0.5. The other suspicions are those of the labels as they were, or new.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torchvision.ops import box_iou

from rtdetr_cli.config.settings.val import ValSettings
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.engine.checking.label_suspects import Suspect, find_suspects
from rtdetr_cli.engine.exporting.runtime_cache import open_detector
from rtdetr_cli.engine.val import run_detector
from rtdetr_cli.evaluation.matching import Found

SHARE = 0.05
KINDS = {
    "removed": "suspected-missing-label",
    "added": "suspected-spurious-label",
    "swapped": "suspected-class-swap",
    "shifted": "suspected-shifted-box",
}
Corners = tuple[float, float, float, float]


@dataclass
class Row:
    """A label in pixels, and how it is spoiled."""

    label: int
    corners: Corners
    spoiled: str = ""


@dataclass
class Tally:
    """Sums over the seeds."""

    planted: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    listed: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    right_kind: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    early: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    first: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    length: int = 0
    total: int = 0


def iou(a: Corners, b: list[Corners]) -> float:
    """Largest IoU of a box with others."""
    if not b:
        return 0.0
    pair = torch.tensor([a], dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    return float(box_iou(*pair).max())


def spoil(dataset: DetectionDataset, seed: int) -> dict[Path, list[Row]]:
    """The rows of each image, 5 % of them spoiled."""
    rng = random.Random(seed)
    rows = {
        one.path: [
            Row(label, tuple(corners))
            for label, corners in zip(one.labels.tolist(), one.boxes_xyxy.tolist(), strict=True)
        ]
        for one in dataset.records
    }
    sizes = {one.path: one.size_hw for one in dataset.records}
    everywhere = [(path, row) for path, some in rows.items() for row in some]
    number = round(SHARE * len(everywhere) / 3)
    for place, (path, row) in enumerate(rng.sample(everywhere, 3 * number)):
        row.spoiled = ("removed", "swapped", "shifted")[place % 3]
        if row.spoiled == "swapped":
            row.label = rng.choice([one for one in dataset.names if one != row.label])
        if row.spoiled == "shifted":
            row.corners = shifted(rng, row.corners, sizes[path])
    for _ in range(number):
        path, row = added(rng, rows, everywhere, sizes)
        rows[path].append(row)
    return rows


def shifted(rng: random.Random, corners: Corners, size_hw: tuple[int, int]) -> Corners:
    """The box elsewhere in the image, with IoU 0.3 to 0.6; as it was if that is impossible."""
    left, top, right, bottom = corners
    for _ in range(1000):
        x, y = (rng.uniform(-0.7, 0.7) * side for side in (right - left, bottom - top))
        moved = (left + x, top + y, right + x, bottom + y)
        inside = min(moved[:2]) >= 0 and moved[2] <= size_hw[1] and moved[3] <= size_hw[0]
        if inside and 0.3 <= iou(corners, [moved]) <= 0.6:
            return moved
    return corners


def added(
    rng: random.Random,
    rows: dict[Path, list[Row]],
    everywhere: list[tuple[Path, Row]],
    sizes: dict[Path, tuple[int, int]],
) -> tuple[Path, Row]:
    """A box with the class and size of another one, where no label is or was."""
    while True:
        path, (_, model) = rng.choice(list(rows)), rng.choice(everywhere)
        left, top, right, bottom = model.corners
        height, width = sizes[path]
        x = rng.uniform(0, width - (right - left))
        y = rng.uniform(0, height - (bottom - top))
        corners = (x, y, x + right - left, y + bottom - top)
        if iou(corners, [row.corners for row in rows[path]]) < 0.2:
            return path, Row(model.label, corners, "added")


def write(dataset: DetectionDataset, rows: dict[Path, list[Row]], root: Path) -> None:
    """Write a YOLO data set with links to the images."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for record in dataset.records:
        (root / "images" / record.path.name).symlink_to(record.path.resolve())
        height, width = record.size_hw
        lines = []
        for row in rows[record.path]:
            if row.spoiled != "removed":
                left, top, right, bottom = row.corners
                centre = (left + right) / 2 / width, (top + bottom) / 2 / height
                size = (right - left) / width, (bottom - top) / height
                lines.append(f"{row.label} " + " ".join(f"{one:.9f}" for one in (*centre, *size)))
        (root / "labels" / f"{record.path.stem}.txt").write_text("\n".join(lines))
    names = list(dataset.names.values())
    (root / "data.yaml").write_text(f"val: images\nnames: {names}\n")


def hits(suspects: list[Suspect], rows: dict[Path, list[Row]]) -> list[tuple[Path, int] | None]:
    """The spoiled label of each suspect: image and index of the row; each counts once."""
    by_name = {path.name: path for path in rows}
    taken: set[tuple[Path, int]] = set()
    found: list[tuple[Path, int] | None] = []
    for one in suspects:
        path = by_name[one.example.images[0].name]
        hit = hit_of(one, path, rows[path])
        found.append(None if hit is None or hit in taken else hit)
        if hit is not None:
            taken.add(hit)
    return found


def hit_of(one: Suspect, path: Path, rows: list[Row]) -> tuple[Path, int] | None:
    """The spoiled label that a suspicion is at."""
    if one.kind.value == KINDS["removed"]:
        for index, row in enumerate(rows):
            if row.spoiled == "removed" and iou(one.example.boxes[0].corners, [row.corners]) >= 0.5:
                return path, index
        return None
    line = int(one.example.where.rpartition(":")[2])
    kept = [index for index, row in enumerate(rows) if row.spoiled != "removed"]
    index = kept[line - 1]
    return (path, index) if rows[index].spoiled else None


def key_of(one: Suspect) -> tuple[str, str, tuple[int, ...]]:
    """What is the same before and after spoiling: kind, image, suspected box."""
    corners = tuple(round(value) for value in one.example.boxes[0].corners)
    return one.kind.value, one.example.images[0].name, corners


def measure(
    dataset: DetectionDataset, found: Found, names: dict[int, str], seeds: int
) -> tuple[list[Suspect], Tally]:
    """Suspects of the labels as they are, and what becomes of the planted errors."""
    before, _ = find_suspects("as it is", dataset, found, names)
    known, tally = {key_of(one) for one in before}, Tally()
    for seed in range(seeds):
        rows = spoil(dataset, seed)
        with tempfile.TemporaryDirectory() as folder:
            write(dataset, rows, Path(folder) / "data")
            spoiled = open_split(load_data(str(Path(folder) / "data" / "data.yaml"), None), "val")
            suspects, _ = find_suspects(
                "spoiled", spoiled, renumbered(found, dataset, spoiled), names
            )
        count(tally, suspects, hits(suspects, rows), rows, known)
    return before, tally


def renumbered(found: Found, old: DetectionDataset, new: DetectionDataset) -> Found:
    """The detections under the image ids of a copy."""
    ids = {record.path.name: record.image_id for record in new.records}
    table = {record.image_id: ids[record.path.name] for record in old.records}
    images = np.array([table[image] for image in found.images.tolist()], np.int64)
    return Found(images, found.classes, found.boxes_xywh, found.scores)


def count(
    tally: Tally,
    suspects: list[Suspect],
    found: list[tuple[Path, int] | None],
    rows: dict[Path, list[Row]],
    known: set[tuple[str, str, tuple[int, ...]]],
) -> None:
    """Add the results of one seed."""
    planted = [row.spoiled for some in rows.values() for row in some if row.spoiled]
    for kind in planted:
        tally.planted[kind] += 1
    tally.total += len(planted)
    tally.length += len(suspects)
    for place, (one, hit) in enumerate(zip(suspects, found, strict=True)):
        kind = rows[hit[0]][hit[1]].spoiled if hit else ""
        if hit:
            tally.listed[kind] += 1
            tally.right_kind[kind] += KINDS[kind] == one.kind.value
            tally.early[kind] += place < len(planted)
        if place < len(planted):
            tally.first["planted" if hit else "before" if key_of(one) in known else "new"] += 1
        tally.first[f"all {one.kind.value}"] += 1
        tally.first[f"hit {one.kind.value}"] += bool(hit)
        tally.first[f"before {one.kind.value}"] += not hit and key_of(one) in known


def main() -> None:
    """Print a table of the kinds, and what the first places of the list are."""
    data, weights, *more = sys.argv[1:]
    split, imgsz, seeds = more + ["test", "320", "10"][len(more) :]
    dataset = open_split(load_data(str(Path(data) / "data.yaml"), None), split)
    settings = ValSettings(model=weights, imgsz=int(imgsz), device="cpu", workers=0)
    detector = open_detector(settings)
    found = run_detector(settings, detector, dataset)
    before, tally = measure(dataset, found, detector.names, int(seeds))
    lines = [f"{split}: {len(dataset)} images, {dataset.num_boxes} labels, {seeds} seeds"]
    lines.append(
        f"suspected before spoiling: {len(before)}, after: {tally.length / int(seeds):.0f}"
    )
    for kind, finding in KINDS.items():
        planted = tally.planted[kind]
        shares = (
            getattr(tally, name)[kind] / planted for name in ("listed", "right_kind", "early")
        )
        listed, right, early = (f"{100 * share:.0f} %" for share in shares)
        number = max(tally.first[f"all {finding}"], 1)
        own, known = (100 * tally.first[f"{one} {finding}"] / number for one in ("hit", "before"))
        lines.append(
            f"{kind}: {planted / int(seeds):.0f} planted, {listed} listed, {right} as this kind, "
            f"{early} among the first; {finding}: {number / int(seeds):.0f}, {own:.0f} % planted, "
            f"{known:.0f} % suspected before"
        )
    first = {one: 100 * tally.first[one] / tally.total for one in ("planted", "before", "new")}
    lines.append(
        f"of the first {tally.total / int(seeds):.0f}: {first['planted']:.0f} % planted, "
        f"{first['before']:.0f} % suspected before spoiling, {first['new']:.0f} % neither"
    )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
