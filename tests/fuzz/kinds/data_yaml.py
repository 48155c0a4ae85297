"""Data set YAMLs: names in all shapes, paths, splits; what opens is read."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from PIL import Image
from yaml_mutations import write_damaged

from rtdetr_cli.data.splits import load_data, open_split

ENTRIES = (
    "images",
    "list.txt",
    "images/a.png",
    ".",
    "../images",
    "absent",
    "",
    "images/",
    "a.json",
)
SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

URL = "http://127.0.0.1:9/a.zip"
DOWNLOADS = (
    [{"url": URL, "sha256": SHA, "to": "x"}],
    [URL, URL],
    URL,
    "bash get.sh",
    [{"url": URL}],
)
OTHERS = (
    {"channels": 3, "nc": 2},
    {"kpt_shape": [17, 3]},
    {"images": {"table": "coco8.txt", "url": "http://127.0.0.1:9/", "archive": URL}},
)


def case(rng: random.Random, folder: Path) -> None:
    """Open a damaged file as a data set, and its splits."""
    _write_images(folder)
    values: dict[str, Any] = {
        "path": rng.choice([".", ".", str(folder), "absent", None, "data.yaml"]),
        "train": rng.choice(["images", rng.choice(ENTRIES), rng.sample(ENTRIES, 2)]),
        "val": rng.choice(["images", "list.txt", rng.choice(ENTRIES)]),
        "names": rng.choice([["cat"], {0: "cat", 1: "dog"}, {"0": "cat"}, ["a", 2, 1.5, True]]),
    }
    if rng.random() < 0.2:
        values["nc"] = rng.choice([1, 2])
    if rng.random() < 0.2:
        values["download"] = rng.choice(DOWNLOADS)
    if rng.random() < 0.1:
        values |= rng.choice(OTHERS)
    if rng.random() < 0.1:
        values = {"source": "shapes", "num_train": 1, "size": 64, "seed": 0}
    path = folder / "data.yaml"
    write_damaged(rng, path, values)
    config = load_data(path)
    for split in ("train", "val"):
        entries = [config.path / entry for entry in getattr(config, split) or ()]
        is_here = all(place.resolve().is_relative_to(folder) for place in entries)
        if entries and is_here:  # neither all of / nor images to draw
            open_split(config, split)


def _write_images(folder: Path) -> None:
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    Image.new("RGB", (32, 32)).save(folder / "images" / "a.png")
    (folder / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (folder / "list.txt").write_text("images/a.png\n")
    (folder / "a.json").write_text('{"images": [], "annotations": [], "categories": []}')
