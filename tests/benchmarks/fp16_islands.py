"""Measure the effect of keeping each part of a float16 graph in float32.

    python tests/benchmarks/fp16_islands.py best.pt my.yaml

Every variant runs on the whole val split with every float16 result rounded
(backends/onnx/half_on_cpu.py) and is compared with the float32 file: AP, share that matches, drift.
The table is in docs/benchmarks.md. Takes ten minutes for rtdetr-n and a hundred images.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx

from rtdetr_cli import RTDETR
from rtdetr_cli.backends.onnx.detector import OnnxDetector
from rtdetr_cli.backends.onnx.half import exact_nodes, to_half, walk
from rtdetr_cli.backends.onnx.half_on_cpu import RoundingDetector
from rtdetr_cli.core.console import result
from rtdetr_cli.engine.exporting.images import find_images
from rtdetr_cli.engine.exporting.verdict import LIMITS, judge, run_detector

HEADER = (
    "| in float32 | AP | matched | lost, new | box drift px, median / p99 / max | score p99 "
    "| largest | casts |"
)


def main() -> None:
    """Export once, then rewrite, run and judge every variant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="weights (.pt) or a float32 .onnx of ours")
    parser.add_argument("data")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--only", nargs="*", help="names of variants")
    options = parser.parse_args()
    path = Path(options.model)
    if path.suffix == ".pt":
        path = Path(RTDETR(path).export(format="onnx", verify=False))
    images = find_images(options.data, options.images)
    exact = OnnxDetector(path, "cpu")
    ours = run_detector(exact, images, exact.preprocessing)
    for line in (
        f"float32: AP {ours.ap:.4f}, {len(ours.detections)} images",
        HEADER,
        "|---" * 8 + "|",
    ):
        result(line)
    for name, nodes in variants(onnx.load(path)):
        if options.only and name not in options.only:
            continue
        model = onnx.load(path)
        to_half(model, nodes)
        casts = sum(node.op_type == "Cast" for node in model.graph.node)
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            Path(file.name).write_bytes(model.SerializeToString())
            half = RoundingDetector(Path(file.name), "cpu")
        theirs = run_detector(half, images, exact.preprocessing)
        found = judge(ours, theirs, LIMITS["fp16"])
        boxes, scores = found.box_drift_px, found.score_drift
        drift = f"{boxes.median:.3f} / {boxes.p99:.3f} / {boxes.max:.3f}" if boxes else "-"
        result(
            f"| {name} | {theirs.ap:.4f} | {found.matched:.2%} | {found.lost}, {found.new} | "
            f"{drift} | {scores.p99 if scores else 0:.4f} | {half.magnitudes[0].value:.0f} | "
            f"{casts} |"
        )


def variants(model: onnx.ModelProto) -> Iterator[tuple[str, set[str]]]:
    """Name and exact nodes of each."""
    graph, chosen = model.graph, exact_nodes(model)
    outputs = [one.name for one in graph.output]
    boxes = walk(model, [name for name in outputs if "boxes" in name])
    scores = walk(model, [name for name in outputs if "boxes" not in name])
    top_k = [node.input[0] for node in graph.node if node.op_type == "TopK"]
    sampling = of_kind(model, "GridSample")
    yield "as exported", chosen
    yield "nothing", set()
    yield "boxes", boxes
    yield "boxes, scores", boxes | scores
    yield "boxes, scores, places", chosen - sampling
    yield "as exported, but the boxes", chosen - boxes
    yield "as exported, and the selection", chosen | walk(model, top_k)
    yield "as exported, and LayerNorm", chosen | of_kind(model, "LayerNormalization")
    yield "as exported, and softmax", chosen | of_kind(model, "Softmax")
    mean_squares = walk(model, [node.input[0] for node in graph.node if node.op_type == "Sqrt"])
    if mean_squares:  # DEIMv2
        yield "as exported, but RMSNorm", chosen - mean_squares
    if bins := chosen & of_kind(model, "Softmax"):  # D-FINE, DEIM, DEIMv2
        yield "as exported, but the softmax over the bins", chosen - bins
    for rooms in (("decoder",), ("backbone",), ("encoder",), ("backbone", "encoder")):
        inside = {node.output[0] for node in graph.node if node.name.startswith(rooms)}
        yield f"as exported, and all of the {' and '.join(rooms)}", chosen | inside
    read = {name for node in graph.node if node.output[0] in chosen for name in node.input}
    products = of_kind(model, "MatMul") | of_kind(model, "Gemm")
    yield "as exported, and the products before the islands", chosen | (products & read)


def of_kind(model: onnx.ModelProto, kind: str) -> set[str]:
    """All nodes of an operator."""
    return {node.output[0] for node in model.graph.node if node.op_type == kind}


if __name__ == "__main__":
    main()
