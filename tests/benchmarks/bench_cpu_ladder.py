"""Compare runtimes and precisions on this CPU: milliseconds, ratio to a peer, AP.

    python tests/benchmarks/bench_cpu_ladder.py --peer-python PEER/bin/python --calibrate my.yaml
    python tests/benchmarks/bench_cpu_ladder.py --model best.pt --data my.yaml --peer-python ...
    OMP_NUM_THREADS=1 python tests/benchmarks/bench_cpu_ladder.py --model deimv2-femto.yaml \\
        --contenders onnx,onnx-int8,openvino,openvino-int8 --imgsz 320 --calibrate images

One call takes a prepared image and returns detections. The peer is the network of Ultralytics'
RTDETR (fused, in eval mode), in the environment of --peer-python. An architecture gets random
weights, which have no AP. A contender that cannot be built is reported with the reason. On a
machine that others use, CPU time and its lower quartile say more than the clock.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from interleave import Contestant, Times, race, reserve_stdout, serve

HERE = Path(__file__).resolve().parent
MARKS = {
    "torch": 0.87,
    "torch-half": 0.51,
    "onnx": 0.72,
    "openvino": 0.71,
    "openvino-half": 0.37,
    "openvino-int8": 0.24,
    "openvino-int8-half": 0.21,
}
"""Ratios to the peer that a prototype reached (2 cores of an AMD EPYC, Zen 4)."""
USUAL = ("torch", "torch-half", "onnx", "onnx-int8", *(one for one in MARKS if "vino" in one))
EXTRA = ("torch-deployed", "torchscript", "torch-compile", "aotinductor")
"""Other ways to run PyTorch, for comparison; two of them compile C++."""


def main() -> None:
    """Write the files, run the race, measure AP if there are labels, print the table."""
    from rtdetr_cli.core.errors import RTDETRError

    options = _options()
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder.resolve() if options.folder else Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        weights = _weights(options.model, folder)
        size = [str(side) for side in _size_hw(weights, options.imgsz)]
        contestants, files = [], {}
        for kind in options.contenders.split(","):
            try:
                files[kind] = str(_file(kind, weights, options, folder))
                command = [sys.executable, Path(__file__).resolve(), "serve", kind, files[kind]]
                contestants.append(Contestant(kind, [*command, *size], folder))
            except (RTDETRError, SystemExit) as error:
                sys.stderr.write(f"{kind} is skipped: {error}\n")
        if options.peer_python:
            command = [options.peer_python.absolute(), HERE / "peer_ladder.py", options.peer_model]
            contestants.append(Contestant("peer", [*command, *size], folder))
        times = race(contestants, options.rounds, options.calls)
        _report(times, _accuracy(files, options) if options.data else {}, files)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="rtdetr-l.yaml", help="weights, or an architecture")
    parser.add_argument("--imgsz", type=int, help="default: the model's own")
    parser.add_argument("--data", help="data set with labels: AP of each contender on its val")
    parser.add_argument("--calibrate", help="images for 8 bits everywhere, without a verdict")
    parser.add_argument("--calibration-images", type=int, default=8)
    parser.add_argument("--contenders", default=",".join(USUAL), help=f"also {', '.join(EXTRA)}")
    parser.add_argument("--rounds", type=int, default=14)
    parser.add_argument("--calls", type=int, default=3, help="calls per contender and round")
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--peer-model", default="rtdetr-l.yaml", help="the peer's own file")
    parser.add_argument("--folder", type=Path, help="keep the files for another run")
    return parser.parse_args()


def _weights(model: str, folder: Path) -> Path:
    """The checkpoint of all contenders."""
    if not model.endswith(".yaml"):
        return Path(model).resolve()
    from bench_predict import write_weights

    path = folder / f"{Path(model).stem}.pt"
    return path if path.is_file() else write_weights(path.stem, folder)


def _size_hw(weights: Path, imgsz: int | None) -> tuple[int, int]:
    from rtdetr_cli.weights.reader import open_weights

    return (imgsz, imgsz) if imgsz else open_weights(weights).preprocessing.size_hw


def _file(kind: str, weights: Path, options: argparse.Namespace, folder: Path) -> Path:
    """The file that a contender opens: the weights, or an export for its runtime.

    Raises:
        RTDETRError: it cannot be written, or its outputs differ from PyTorch's.
    """
    from rtdetr_cli import RTDETR

    runtime, *precision = kind.split("-")
    if runtime not in {"onnx", "openvino"}:
        return weights
    stem = "_".join([weights.stem, *precision])
    path = folder / (f"{stem}.onnx" if runtime == "onnx" else f"{stem}_openvino_model")
    if path.exists():
        return path
    if "int8" in precision and options.calibrate:
        _write_unjudged_int8(path, _file("onnx", weights, options, folder), precision, options)
        return path
    keys = {"format": runtime, "imgsz": options.imgsz, "output": str(path)}
    keys |= dict.fromkeys(precision, True)
    keys |= {"data": options.data} if "int8" in precision else {"verify": False}
    return Path(RTDETR(weights, device="cpu").export(**keys))


def _write_unjudged_int8(
    path: Path, float_path: Path, precision: list[str], options: argparse.Namespace
) -> None:
    """Write int8 without a verdict, which random weights cannot pass."""
    from rtdetr_cli.backends.onnx.detector import OnnxDetector
    from rtdetr_cli.engine.exporting.images import find_images, prepare

    sources = find_images(options.calibrate, options.calibration_images)
    preprocessing = OnnxDetector(float_path).preprocessing
    if path.suffix == ".onnx":
        from rtdetr_cli.engine.exporting.int8 import _Bench

        shutil.copy(float_path, path)
        bench = _Bench(path, preprocessing, drop=1)
        bench.calibrate(sources)
        bench.write(())
        return
    from rtdetr_cli.backends.openvino.detector import write_openvino

    images = [
        prepare(one, preprocessing)[None].numpy() for one in sources.read(0, len(sources.sources))
    ]
    sizes = np.array([[640, 480]], np.int64)
    feeds = [{"images": image, "orig_target_sizes": sizes} for image in images]
    path.mkdir()
    write_openvino(path, float_path, half="half" in precision, calibration=feeds)


def _accuracy(files: dict[str, str], options: argparse.Namespace) -> dict[str, float]:
    """AP of each contender that our own class opens."""
    from rtdetr_cli import RTDETR

    keys = {"data": options.data, "imgsz": options.imgsz, "plots": False, "json": True}
    with redirect_stdout(sys.stderr):
        return {
            kind: RTDETR(file, device="cpu").val(half=kind == "torch-half", **keys).box.map
            for kind, file in files.items()
            if kind not in EXTRA
        }


def _report(
    times: dict[str, list[Times]], accuracy: dict[str, float], files: dict[str, str]
) -> None:
    """Print a Markdown table; ratios are to the peer, or to the first without a peer."""
    from rtdetr_cli.engine.exporting.report import megabytes

    medians = {
        name: statistics.median(row["image"] for row in rows) for name, rows in times.items()
    }
    base = medians.get("peer", next(iter(medians.values())))
    lines = [
        "| contender | median ms | ratio | mark (L) | images/s | CPU ms, median / quartile | AP "
        "| MB | calls |",
        "|---" * 9 + "|",
    ]
    for name, ms in medians.items():
        mark = MARKS.get(name, "")
        ap = f"{accuracy[name]:.4f}" if name in accuracy else ""
        size = f"{megabytes(Path(files[name])):.1f}" if name in files else ""
        quartile, median, _ = statistics.quantiles(row.get("cpu", 0) for row in times[name])
        row = (name, f"{ms:.1f}", f"{ms / base:.3f}", mark, f"{1000 / ms:.2f}")
        row += (f"{median:.1f} / {quartile:.1f}", ap, size, len(times[name]))
        lines.append(f"| {' | '.join(map(str, row))} |")
    sys.stdout.write("\n".join(lines) + "\n" + json.dumps(medians) + "\n")


def serve_ours(kind: str, file: str, height: str, width: str) -> None:
    """Run as one of our contenders."""
    replies = reserve_stdout()
    import torch

    torch.manual_seed(0)
    images = torch.rand(1, 3, int(height), int(width))
    detect = _detector(kind, file, images)

    @torch.inference_mode()
    def call() -> Times:
        start, cpu = time.perf_counter(), time.process_time()
        detect()
        seconds = {"image": time.perf_counter() - start, "cpu": time.process_time() - cpu}
        return {name: 1000 * value for name, value in seconds.items()}

    serve(replies, call)


def _detector(kind: str, file: str, images: object) -> Callable[[], object]:
    """One call of a contender."""
    from rtdetr_cli.backends.load import load_detector

    detector = load_detector(file, "cpu", half=kind == "torch-half")
    if kind in EXTRA:
        return _other_torch(kind, detector, images)
    return lambda: detector.detect(images, [(480, 640)])


def _other_torch(kind: str, detector: object, images: object) -> Callable[[], object]:
    """The network in a form of PyTorch that the product does not use."""
    import torch
    from torch._inductor import aoti_compile_and_package, aoti_load_package, config

    from rtdetr_cli.backends.onnx.graph import DetectionGraph, GraphOptions

    config.freezing = True
    graph = DetectionGraph(detector.network, tuple(images.shape[-2:]), GraphOptions())
    graph = graph.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    example = (images.contiguous(memory_format=torch.channels_last), torch.tensor([[640, 480]]))
    with torch.inference_mode(kind != "aotinductor"):
        if kind == "torchscript":
            traced = torch.jit.freeze(torch.jit.trace(graph, example, check_trace=False))
            graph = torch.jit.optimize_for_inference(traced)
        if kind == "torch-compile":
            graph = torch.compile(graph)
    if kind == "aotinductor":
        with torch.no_grad():
            program = torch.export.export(graph, example, strict=False)
            package = Path(tempfile.mkdtemp()) / "model.pt2"
            graph = aoti_load_package(aoti_compile_and_package(program, package_path=str(package)))
    return lambda: graph(*example)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve_ours(*sys.argv[2:])
    else:
        main()
