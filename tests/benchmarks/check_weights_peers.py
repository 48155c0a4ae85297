"""Compare files of other families, opened and written by us, with their own toolkits.

    python tests/benchmarks/check_weights_peers.py --peer-python PEER/bin/python [--loading]

Reading: the peers build networks with seeded random weights and BatchNorm statistics, save them in
their own way, reload them in float32 and store the outputs for one 320x320 image; we open each file
and compare. Writing: transformers loads and runs our Hugging Face folders; official files are
compared with tables of the official networks' keys and shapes (--states FOLDER).

Queries are compared one by one in the order of their selection. Those that differ are matched again
among themselves (Hungarian, largest difference as cost), because selection scores that are equal
within float32 may come in another order; they are counted as swapped. Queries that still differ by
more than 1e-4 are apart, and the maxima are those of the rest. Only discrete sampling may leave
some, because rounding to whole pixels turns a difference in the last digit into a step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from interleave import PEER_ENVIRONMENT
from peer_weights import drawn_image, fill, opening
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.core.coco_classes import COCO_NAMES
from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint
from rtdetr_cli.weights.reader import open_weights
from rtdetr_cli.weights.write_hugging_face import write_hugging_face
from rtdetr_cli.weights.write_official import official_state, write_official

HERE = Path(__file__).resolve().parent
TOLERANCE = 1e-4
ROUNDS = 3  # of opening; medians are reported
MAX_FLIPS = 3  # queries that may stay apart where sampling is discrete
OFFICIAL_TABLES = {
    "rtdetr-r18": "official_v2_r18vd",
    "rtdetr-r50": "official_v2_r50vd",
    "rtdetr-l": "official_hgnetv2_l",
    "rtdetr-x": "official_hgnetv2_x",
    "rtdetr-h": "official_hgnetv2_h",
}


def main() -> None:
    """Build, open, write, and print Markdown tables; exit code 1 if anything disagrees."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", type=Path, required=True)
    parser.add_argument("--states", type=Path, help="folder of official key tables (JSON)")
    parser.add_argument("--loading", action="store_true", help="seconds and memory of opening L")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.loading:
            loading(folder, options.peer_python.absolute())
            return
        peer(options.peer_python.absolute(), "build", folder)
        show("| file | logits | boxes | queries swapped | apart |", "|---|---|---|---|---|")
        good = [compare_opened(path) for path in sorted(folder.iterdir()) if is_file(path)]
        for one in written():
            write_hugging_face(folder / f"written-{one.config.name}", one)
        peer(options.peer_python.absolute(), "outputs", folder)
        good += [compare_written(folder, one) for one in written()]
        if options.states:
            good += [compare_official(name, options.states) for name in OFFICIAL_TABLES]
    sys.exit(0 if all(good) else 1)


def is_file(path: Path) -> bool:
    """Whether a peer wrote it."""
    return path.suffix == ".pt" or path.is_dir()


def peer(python: Path, *words: str | Path) -> str:
    """Run the peer and return its output."""
    return peer_output([str(python), str(HERE / "peer_weights.py"), *map(str, words)])


def peer_output(command: list[str]) -> str:
    """Stdout of a process without network and with its own home."""
    with tempfile.TemporaryDirectory() as home:
        offline = {**PEER_ENVIRONMENT, "YOLO_OFFLINE": "true", "HF_HUB_OFFLINE": "1"}
        return subprocess.run(
            command,
            check=True,
            text=True,
            stdout=subprocess.PIPE,
            env={**os.environ, **offline, "YOLO_CONFIG_DIR": home},
        ).stdout


def compare_opened(path: Path) -> bool:
    """Compare one file of a peer, opened by us."""
    try:
        return compare(path.name, path, open_weights(path))
    except WeightsError as error:
        show(f"| {path.name} | refused: {error} | | | |")
        return False


def written() -> list[Checkpoint]:
    """Checkpoints to write: v1 and v2 classes, a decoder with unused layers, another epsilon."""
    found = []
    for name, changes in (
        ("rtdetr-r18", {}),
        ("rtdetr-r50", {}),
        ("rtdetr-r50m", {}),
        ("rtdetr-r18", {"sampling": "discrete"}),
        ("rtdetr-r18", {"norm_eps": 1e-3}),
    ):
        config = load_model_config(name)
        title = "-".join([name, *map(str, changes.values())])
        if "sampling" in changes:
            config = replace(config, decoder=replace(config.decoder, sampling="discrete"))
        config = replace(config, name=title, norm_eps=changes.get("norm_eps", config.norm_eps))
        network = fill(RTDETRNetwork(config, len(COCO_NAMES)))
        found.append(Checkpoint(config, dict(COCO_NAMES), network.state_dict()))
    return found


def compare_written(folder: Path, checkpoint: Checkpoint) -> bool:
    """Compare a folder of ours, loaded by transformers, with our own outputs."""
    name = f"written-{checkpoint.config.name}"
    return compare(f"{name} (format=hf)", folder / name, checkpoint)


def compare_official(architecture: str, states: Path) -> bool:
    """Compare our official file with the official network, key by key."""
    config = load_model_config(architecture)
    weights = RTDETRNetwork(config, len(COCO_NAMES)).state_dict()
    state = official_state(Checkpoint(config, dict(COCO_NAMES), weights))
    shapes = {key: list(tensor.shape) for key, tensor in state.items()}
    expected = json.loads((states / f"{OFFICIAL_TABLES[architecture]}.json").read_text())
    wrong = {key for key in {*shapes, *expected} if shapes.get(key) != expected.get(key)}
    show(f"| {architecture} (format=official) | {len(expected)} keys, {len(wrong)} wrong | | | |")
    return not wrong


@torch.inference_mode()
def compare(title: str, path: Path, checkpoint: Checkpoint) -> bool:
    """Print the largest differences from the outputs stored beside `path`."""
    network = RTDETRNetwork(checkpoint.config, len(checkpoint.names)).eval()
    network.load_state_dict(checkpoint.weights)
    output = network(drawn_image())
    stored = np.load(path.with_name(f"{path.name}.npz"))
    num_classes = stored["logits"].shape[-1]
    theirs = np.concatenate((stored["logits"][0], stored["boxes"][0]), axis=1)
    ours = torch.cat((output.pred_logits[0], output.pred_boxes[0]), dim=1)
    differences, swapped = match(ours, theirs)
    is_apart = differences.max(axis=1) > TOLERANCE
    close = differences if is_apart.all() else differences[~is_apart]
    logits, boxes = close[:, :num_classes].max(), close[:, num_classes:].max()
    apart = f"{is_apart.sum()} (by {differences[is_apart].max():.1e})" if is_apart.any() else "0"
    show(f"| {title} | {logits:.1e} | {boxes:.1e} | {swapped} of {len(theirs)} | {apart} |")
    allowed = MAX_FLIPS if checkpoint.config.decoder.sampling == "discrete" else 0
    return bool(is_apart.sum() <= allowed)


def match(ours: Tensor, theirs: np.ndarray) -> tuple[np.ndarray, int]:
    """Absolute differences (Q, K + 4) after matching, and the number of swapped queries."""
    mine = ours.numpy().copy()
    apart = np.flatnonzero(np.abs(mine - theirs).max(axis=1) > TOLERANCE)
    cost = np.abs(theirs[apart, None] - mine[None, apart]).max(axis=2)
    rows, columns = linear_sum_assignment(cost)
    mine[apart[rows]] = mine[apart[columns]]
    return np.abs(mine - theirs), int((rows != columns).sum())


def loading(folder: Path, python: Path) -> None:
    """Print seconds and peak memory of opening L in a fresh process, ours and the peers'."""
    config = load_model_config("rtdetr-l")
    weights = fill(RTDETRNetwork(config, len(COCO_NAMES))).state_dict()
    checkpoint = Checkpoint(config, dict(COCO_NAMES), weights)
    save_checkpoint(folder / "ours.pt", checkpoint)
    write_official(folder / "official.pth", checkpoint)
    peer(python, "ultralytics-l", folder)
    show("| file | MB | opened by | seconds | of the processor | peak memory, MB | of it opening |")
    show("|---|---|---|---|---|---|---|")
    ours = [sys.executable, str(Path(__file__).resolve()), "load"]
    theirs = [str(python), str(HERE / "peer_weights.py"), "load"]
    doors = {
        (name, title): [*command, str(folder / name)]
        for name in ("ours.pt", "official.pth", "ultralytics-l-fp16.pt")
        for title, command in (
            ("ours, weights", [*ours, "weights"]),
            ("ours, detector", [*ours, "detector"]),
            ("torch.load" if name == "official.pth" else "Ultralytics, detector", theirs),
        )
        if name != "ours.pt" or command is not theirs
    }
    measured: dict[tuple[str, str], list[dict[str, float]]] = {door: [] for door in doors}
    for _ in range(ROUNDS):
        for door, command in doors.items():
            measured[door].append(json.loads(peer_output(command).splitlines()[-1]))
    for (name, title), found in measured.items():
        size = (folder / name).stat().st_size / 1e6
        median = {key: statistics.median(one[key] for one in found) for key in found[0]}
        times = f"{median['seconds']:.2f} | {median['busy']:.2f}"
        memory = f"{median['peak']:.0f} | {median['peak'] - median['before']:.0f}"
        show(f"| {name} | {size:.0f} | {title} | {times} | {memory} |")


def load(door: str, path: str) -> None:
    """Run as one of our fresh processes."""
    from rtdetr_cli import RTDETR

    opening(lambda: RTDETR(path, device="cpu") if door == "detector" else open_weights(path))


def show(*lines: str) -> None:
    """Print lines of the table at once."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["load"]:
        load(*sys.argv[2:])
    else:
        main()
