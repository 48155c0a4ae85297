"""Milliseconds per image: ours in PyTorch, ours in ONNX Runtime, and a peer.

    python tests/benchmarks/bench_predict.py bus.jpg --peer-python PEER/bin/python

One call reads the file, resizes it, runs the network with random weights and post-processes. The
peer is Ultralytics' RTDETR in the environment that --peer-python names; without it only ours run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from interleave import Contestant, Times, race, report, reserve_stdout, serve

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Build the files, run the race, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("--architecture", choices=("rtdetr-l", "rtdetr-x"), default="rtdetr-l")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=3, help="images per contestant and round")
    parser.add_argument("--peer-python", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = options.image.resolve()
        weights = write_weights(options.architecture, folder)
        serving = [sys.executable, Path(__file__).resolve(), "serve"]
        contestants = [
            Contestant("ours, PyTorch", [*serving, weights, image], folder),
            Contestant("ours, ONNX Runtime", [*serving, export(weights), image], folder),
        ]
        if options.peer_python:
            peer = [options.peer_python.absolute(), HERE / "peer_predict.py"]
            architecture = f"{options.architecture}.yaml"
            contestants.append(Contestant("peer", [*peer, architecture, image], folder))
        report(race(contestants, options.rounds, options.calls))


def write_weights(architecture: str, folder: Path) -> Path:
    """A checkpoint with random weights for COCO's 80 classes."""
    import torch

    from rtdetr_cli.backends.torch import build_network
    from rtdetr_cli.config.load import load_model_config
    from rtdetr_cli.core.coco_classes import COCO_NAMES
    from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint

    torch.manual_seed(0)
    config = load_model_config(architecture)
    network = build_network(config, len(COCO_NAMES))
    path = folder / f"{architecture}.pt"
    save_checkpoint(path, Checkpoint(config, dict(COCO_NAMES), network.state_dict()))
    return path


def export(weights: Path) -> str:
    """The same weights as an ONNX file."""
    from rtdetr_cli import RTDETR

    return RTDETR(weights).export(format="onnx", verify=False)


def serve_ours(weights: str, image: str) -> None:
    """Run as one of our contestants."""
    replies = reserve_stdout()
    from rtdetr_cli import RTDETR

    model = RTDETR(weights)

    def call() -> Times:
        start = time.perf_counter()
        model(image)
        return {"image": 1000 * (time.perf_counter() - start)}

    serve(replies, call)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve_ours(*sys.argv[2:])
    else:
        main()
