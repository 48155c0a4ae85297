"""Compare calibrators for INT8: AP and drift of one trained model.

    .venv/bin/python tests/benchmarks/int8_calibrators.py best.pt data.yaml [split]

Writes only temporary files. All convolutions of backbone and encoder are quantised, as
`rtdetr export int8` begins; ranges are measured once on the train split. Each file runs as this
toolkit opens it on a CPU, and as it is, which is what TensorRT computes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization.calibrate import CalibrationDataReader, PercentileCalibrater

from rtdetr_cli.backends.load import load_detector
from rtdetr_cli.backends.onnx.calibration import BINS, Histogram, Observer
from rtdetr_cli.backends.onnx.detector import OnnxDetector, UnchangedDetector
from rtdetr_cli.backends.onnx.int8 import LEVELS, plan, quantize
from rtdetr_cli.backends.onnx.writer import write_onnx
from rtdetr_cli.backends.torch import TorchDetector
from rtdetr_cli.core.console import result
from rtdetr_cli.core.image import resize_image, to_tensor
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.engine.exporting.images import Images, evenly
from rtdetr_cli.engine.exporting.int8 import PERCENTILES
from rtdetr_cli.engine.exporting.verdict import LIMITS, judge, run_detector


def least_error(histogram: Histogram) -> float:
    """The range whose rounding has the least squared error."""
    centres = (torch.arange(BINS) + 0.5) / BINS * histogram.limit
    candidates = histogram.largest * torch.arange(1, 129) / 128
    scales = candidates[:, None] / LEVELS
    rounded = (centres / scales).round().clamp(max=LEVELS) * scales
    errors = ((rounded - centres) ** 2 * histogram.counts).sum(1)
    return float(candidates[errors.argmin()])


def entropy(histogram: Histogram) -> float:
    """The range whose 128 levels lose the least information (Migacz, GTC 2017)."""
    counts = histogram.counts.numpy()
    best = (np.inf, BINS)
    for end in range(128, BINS + 1, 16):
        before = counts[:end].copy()
        before[-1] += counts[end:].sum()
        groups = np.arange(end) * 128 // end
        filled = counts[:end] > 0
        sums = np.bincount(groups, counts[:end], 128)
        numbers = np.bincount(groups, filled, 128)
        after = np.where(filled, (sums / np.maximum(numbers, 1))[groups], 0)
        p, q = before / before.sum(), np.maximum(after / after.sum(), 1e-12)
        divergence = float((p * np.log(np.maximum(p, 1e-12) / q)).sum())
        best = min(best, (divergence, end))
    return min(best[1] / BINS * histogram.limit, histogram.largest)


class Theirs(PercentileCalibrater):
    """ONNX Runtime's calibrator, for some tensors only."""

    tensors: set[str]

    def select_tensors_to_calibrate(
        self, model: onnx.ModelProto
    ) -> tuple[set[str], dict[str, Any]]:
        """Their names, and the value info of each."""
        return self.tensors, {one.name: one for one in model.graph.value_info}


class One(CalibrationDataReader):
    """A single image."""

    def __init__(self, feed: dict[str, Any]) -> None:
        self.feeds = [feed]

    def get_next(self) -> dict[str, Any] | None:
        """The image, then nothing."""
        return self.feeds.pop() if self.feeds else None


def theirs_s(path: Path, tensors: set[str], detector: TorchDetector, images: Images) -> float:
    """Seconds per image of ONNX Runtime's percentile calibrator."""
    calibrator = Theirs(path, augmented_model_path=str(path.with_suffix(".more.onnx")))
    calibrator.tensors = tensors - {"images"}
    calibrator.augment_graph()
    calibrator.create_inference_session()
    size_hw, antialias = detector.preprocessing.size_hw, detector.preprocessing.antialias
    start = time.perf_counter()
    for source in images.read(0, 8):
        image = to_tensor(resize_image(source, size_hw, antialias))[None].numpy()
        feed = {"images": image, "orig_target_sizes": np.array([size_hw[::-1]])}
        with redirect_stdout(None):
            calibrator.collect_data(One(feed))
    return (time.perf_counter() - start) / 8


def main() -> None:
    """Print a row for each calibrator."""
    model, data, split = (*sys.argv[1:], "val")[:3]
    detector = load_detector(model, "cpu")
    assert isinstance(detector, TorchDetector)
    records = open_split(load_data(data), "train").records
    train = Images([records[n].path for n in evenly(len(records), 100)])
    truth = open_split(load_data(data), split)
    images = Images([one.path for one in truth.records], truth, split)
    path = Path(tempfile.mkdtemp()) / "model.onnx"
    write_onnx(path, detector.network, detector.names, detector.preprocessing)
    float_model = onnx.load(path)
    observer = Observer(path, plan(float_model.graph).readers)
    start = time.perf_counter()
    run_detector(observer, train, detector.preprocessing)
    seconds = (time.perf_counter() - start) / len(train.sources)
    library_s = theirs_s(path, set(observer.histograms), detector, train)
    result(f"measuring takes {seconds:.2f} s an image, by ONNX Runtime {library_s:.2f} s")
    expected = run_detector(detector, images, detector.preprocessing)
    rules = {f"{p} %": partial(Histogram.percentile, percent=p) for p in PERCENTILES}
    rules |= {"least error": least_error, "entropy": entropy}
    for name, rule in rules.items():
        largest = {tensor: rule(one) for tensor, one in observer.histograms.items()}
        path.write_bytes(quantize(float_model, largest).SerializeToString())
        for kind in (OnnxDetector, UnchangedDetector):
            found = run_detector(kind(path, "cpu"), images, detector.preprocessing)
            result(f"{name}, {kind.__name__}: {judge(expected, found, LIMITS['int8'])}")


if __name__ == "__main__":
    main()
