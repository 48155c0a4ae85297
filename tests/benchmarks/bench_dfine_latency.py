"""Latency of D-FINE's networks: ours in PyTorch and as ONNX, beside the official code's own.

    python tests/benchmarks/bench_dfine_latency.py --peer-python PEER/bin/python --official D-FINE
    python tests/benchmarks/bench_dfine_latency.py --weights W.pth --peer-onnx ITS.onnx --imgsz 320

The first form draws weights in the official code, which all contestants read. The second compares
our export of trained weights with one by their authors. One call takes a prepared image and returns
detections. `processor` is the processor time, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_onnx_graph import count_nodes
from interleave import Contestant, Times, race, report, reserve_stdout, serve

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Write the files, run the race of each runtime, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="dfine-l", choices=[f"dfine-{size}" for size in "nsmlx"])
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--official", type=Path, help="the folder of its repository")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--peer-onnx", type=Path)
    parser.add_argument("--imgsz", default="640")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=3, help="images per contestant and round")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights, peer_onnx = options.weights, options.peer_onnx
        if options.official:
            weights, peer_onnx = folder / f"{options.model}.pth", folder / "official.onnx"
            peer = [options.peer_python.absolute(), HERE / "official_dfine.py"]
            rest = [options.official.absolute(), options.model, options.imgsz]
            command = [*peer, "write", *rest, folder]
            subprocess.run([*map(str, command)], check=True, stdout=sys.stderr)
            command = [*peer, "serve", *rest, weights]
            official = Contestant("official, PyTorch", command, folder)
            ours = contestant("ours, PyTorch", weights, options, folder)
            report(race([ours, official], options.rounds, options.calls))
        path = export(weights, folder, int(options.imgsz))
        for title, file in (("ours", path), ("official", peer_onnx)):
            sys.stdout.write(f"{title}: {count_nodes(file)} nodes\n")
        contestants = [
            contestant("ours, ONNX", path, options, folder),
            contestant("official, ONNX", peer_onnx.resolve(), options, folder),
        ]
        report(race(contestants, options.rounds, options.calls))


def contestant(name: str, file: Path, options: argparse.Namespace, folder: Path) -> Contestant:
    """A process of this file."""
    words = ["serve", file.resolve(), options.imgsz, str(options.threads)]
    return Contestant(name, [sys.executable, Path(__file__).resolve(), *words], folder)


def export(weights: Path, folder: Path, imgsz: int) -> Path:
    """Our ONNX file of the weights, as `rtdetr export` writes it by default."""
    from rtdetr_cli import RTDETR

    output = str(folder / "ours.onnx")
    return Path(RTDETR(weights).export(format="onnx", imgsz=imgsz, verify=False, output=output))


def serve_ours(file: str, imgsz: str, threads: str) -> None:
    """Run as one of the contestants: an ONNX file in ONNX Runtime, or weights in PyTorch."""
    replies = reserve_stdout()
    run = onnx_runner if file.endswith(".onnx") else torch_runner
    detect = run(file, int(imgsz), int(threads))

    def call() -> Times:
        wall, busy = time.perf_counter(), time.process_time()
        detect()
        return {
            "image": 1000 * (time.perf_counter() - wall),
            "processor": 1000 * (time.process_time() - busy),
        }

    serve(replies, call)


def torch_runner(file: str, imgsz: int, _threads: int):
    """The detector that `rtdetr benchmark` runs."""
    import torch

    from rtdetr_cli.backends.load import load_detector

    torch.manual_seed(0)
    images = torch.rand(1, 3, imgsz, imgsz)
    detector = load_detector(file, "cpu")
    return lambda: detector.detect(images, [(480, 640)])


def onnx_runner(file: str, imgsz: int, threads: int):
    """A session with the settings of both files."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).random((1, 3, imgsz, imgsz), np.float32)
    values = (pixels, np.array([[640, 480]]))
    feed = {one.name: value for one, value in zip(session.get_inputs(), values, strict=False)}
    return lambda: session.run(None, feed)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve_ours(*sys.argv[2:])
    else:
        main()
