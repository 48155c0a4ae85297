"""Latency on a CPU and nodes of our ONNX graph, beside a peer's export of the same weights.

    PEER/bin/python tests/benchmarks/peer_export.py rtdetr-l FOLDER
    python tests/benchmarks/bench_onnx_graph.py FOLDER/rtdetr-l.pt --peer-onnx FOLDER/rtdetr-l.onnx
    python tests/benchmarks/bench_onnx_graph.py FOLDER/rtdetr-l.pt --rewrites

The first table has our graph with a batch of one and with a free batch, and with --peer-onnx the
peer's; the differences of their detections are printed first. With --rewrites it has our graph
without each single rewrite instead: a rewrite is unnecessary if the graph is not slower without.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from interleave import Contestant, Times, race, report, reserve_stdout, serve

SIZE_HW = (640, 640)


def main() -> None:
    """Write the files, compare them, run the race, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", help="a checkpoint of any family, or an architecture (.yaml)")
    parser.add_argument("--peer-onnx", type=Path, action="append", default=[])
    parser.add_argument("--rewrites", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=2, help="images per contestant and round")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_variants(options.weights, folder, options.rewrites)
        files |= {f"peer, {path.stem}": path.resolve() for path in options.peer_onnx}
        first = next(iter(files.values()))
        for file_name, path in files.items():
            sys.stdout.write(f"{file_name}: {count_nodes(path)} nodes; {drift(first, path)}\n")
        serving = [sys.executable, Path(__file__).resolve(), "serve", str(options.threads)]
        contestants = [
            Contestant(file_name, [*serving, path], folder) for file_name, path in files.items()
        ]
        if options.rewrites:  # ratios are to the last one
            contestants = [*contestants[1:], contestants[0]]
        report(race(contestants, options.rounds, options.calls))


def write_variants(weights: str, folder: Path, rewrites: bool) -> dict[str, Path]:
    """Our files by their titles."""
    from rtdetr_cli.backends.load import load_detector
    from rtdetr_cli.backends.onnx import graph as onnx_graph
    from rtdetr_cli.backends.onnx.writer import write_onnx
    from rtdetr_cli.config.model import Preprocessing

    detector = load_detector(weights, "cpu")
    free, fixed = onnx_graph.GraphOptions(), onnx_graph.GraphOptions(batch=1)
    wanted: dict[str, tuple[onnx_graph.GraphOptions, Callable | None]] = {"ours": (fixed, None)}
    if rewrites:
        from graph_rewrites import CHANGES

        wanted |= {f"without {name}": (fixed, change) for name, change in CHANGES.items()}
    else:
        wanted["ours, free batch"] = (free, None)
    files = {}
    original, graph_class = onnx_graph.drop_pads, onnx_graph.DetectionGraph.__init__
    for name, (options, change) in wanted.items():
        path = folder / f"{len(files)}.onnx"

        def build(graph, network, size_hw, options, change=change) -> None:
            graph_class(graph, network, size_hw, options)
            if change:
                change(graph.network, network)

        onnx_graph.DetectionGraph.__init__ = build
        onnx_graph.drop_pads = original if name != "without pads in the pool" else lambda _: None
        preprocessing = Preprocessing(SIZE_HW, detector.preprocessing.antialias)
        write_onnx(path, detector.network, detector.names, preprocessing, options)
        files[name] = path
    onnx_graph.drop_pads, onnx_graph.DetectionGraph.__init__ = original, graph_class
    return files


def count_nodes(path: Path) -> int:
    """Number of nodes without constants and identities, which only some exporters write."""
    import onnx

    nodes = onnx.load(path).graph.node
    return sum(node.op_type not in {"Constant", "Identity"} for node in nodes)


def drift(ours: Path, other: Path) -> str:
    """Differences of the best hundred detections on one drawn image."""
    import torch

    from rtdetr_cli.backends.onnx.detector import OnnxDetector

    image = torch.rand(1, 3, *SIZE_HW, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.avg_pool2d(image, 31, 1, 15)
    first, second = (
        OnnxDetector(path, "cpu").detect(image, [SIZE_HW], 100)[0] for path in (ours, other)
    )
    scores = (first.scores - second.scores).abs().max()
    distances = torch.cdist(first.boxes_xyxy, second.boxes_xyxy, p=float("inf")).amin(dim=1)
    return f"scores within {scores:.1e}, boxes within {distances.max():.1e} px of ours"


def serve_file(threads: str, file: str) -> None:
    """Run as one of the contestants."""
    replies = reserve_stdout()
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).random((1, 3, *SIZE_HW), np.float32)
    sizes = np.array([SIZE_HW])
    values = (pixels, sizes)[: len(session.get_inputs())]
    feed = {one.name: value for one, value in zip(session.get_inputs(), values, strict=True)}

    def call() -> Times:
        wall, cpu = time.perf_counter(), time.process_time()
        session.run(None, feed)
        return {
            "image": 1000 * (time.perf_counter() - wall),
            "CPU time": 1000 * (time.process_time() - cpu),
        }

    serve(replies, call)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve_file(*sys.argv[2:])
    else:
        main()
