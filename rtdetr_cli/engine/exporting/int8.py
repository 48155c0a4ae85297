"""INT8 for ONNX files: calibrate on the user's images, keep float what costs too much accuracy.

onnx.py writes the float file first; the graph is changed by backends/onnx/int8.py and
calibration.py.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rtdetr_cli.backends.load import Detector
from rtdetr_cli.backends.onnx.calibration import Histogram, Observer
from rtdetr_cli.backends.onnx.detector import OnnxDetector, UnchangedDetector
from rtdetr_cli.backends.onnx.int8 import blocks, plan, quantize
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.core.console import say, warn
from rtdetr_cli.core.status import counted
from rtdetr_cli.engine.exporting.images import Images, evenly, find_calibration
from rtdetr_cli.engine.exporting.verdict import (
    LIMITS,
    Agreement,
    Predictions,
    judge,
    run_detector,
    warn_if_other_classes,
)

NUM_TRIALS = 8
"""Calibration images used to compare percentiles and blocks."""
PERCENTILES = (100.0, 99.999, 99.99, 99.9)
"""Candidates for the share of a tensor's values inside its range; the best depends on the model."""


def quantize_file(
    path: Path, reference: Detector, images: Images, settings: ExportSettings
) -> tuple[Agreement, dict[str, Any]]:
    """Replace a float file by one with int8 in backbone and encoder.

    Args:
        path: the file as written by `write_onnx`.
        reference: the network in PyTorch.
        images: images that decide which blocks stay float.
        settings: `data` names the calibration images, `int8_drop` the AP that may be lost.

    Returns:
        The comparison, and facts for the report: nodes, calibration, and what stays float and why.
    """
    calibration = find_calibration(str(settings.data), images, settings.download)
    bench = _Bench(path, reference.preprocessing, settings.int8_drop / 100)
    bench.calibrate(calibration)
    expected = run_detector(reference, images, reference.preprocessing)
    warn_if_other_classes(reference, expected, images)
    parts, reasons, order = blocks(bench.model.graph), dict[str, str](), list[str]()
    agreement = bench.judge((), images, expected)
    while not agreement.passes and len(reasons) < len(parts):
        order = order or bench.most_sensitive(parts)
        block = order[len(reasons)]
        reasons[block] = "; ".join(agreement.faults)
        say(f"{block} stays float: {reasons[block]}")
        agreement = bench.judge(reasons, images, expected)
    warn_if_all_float(reasons, parts)
    notes = {
        "calibration": calibration.origin,
        "calibration_images": len(calibration.sources),
        "percentile": bench.percentile,
        "convolutions": len(plan(bench.model.graph, reasons).convs),
        "float": {"decoder": "always", "attention of the encoder": "always", **reasons},
    }
    return agreement, {"nodes": bench.write(reasons, notes), **notes}


def warn_if_all_float(reasons: Collection[str], parts: Sequence[str]) -> None:
    """Warn if no block of a file is left in int8."""
    if len(reasons) == len(parts):
        warn(
            "no block can be int8 within the limits: the file is neither smaller nor faster than "
            "the one without int8; int8_drop= allows a larger loss of AP"
        )


@dataclass
class _Bench:
    """A float file, overwritten by its int8 candidates in turn."""

    path: Path
    preprocessing: Preprocessing
    drop: float
    percentile: float = 100.0
    largest: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import onnx

        self.model = onnx.load(self.path)
        self.limits = replace(LIMITS["int8"], ap=self.drop)

    def calibrate(self, images: Images) -> None:
        """Measure all ranges once, and choose the percentile with the least drift."""
        count = len(images.sources)
        say(f"calibrating on {counted(count, 'image')} of {images.origin}")
        observer = Observer(self.path, plan(self.model.graph).readers)
        exact = run_detector(observer, images, self.preprocessing, "calibrate")
        places = evenly(count, NUM_TRIALS)
        self.trials = Images([images.sources[n] for n in places])
        found = [exact.detections[n] for n in places]
        self.expected = Predictions(found, [exact.sizes_hw[n] for n in places], None)
        matched = {}
        for percentile in PERCENTILES:
            self._use(observer.histograms, percentile)
            matched[percentile] = self.judge((), self.trials, self.expected).matched
        best = max(PERCENTILES, key=matched.__getitem__)
        self._use(observer.histograms, best)
        shown = ", ".join(f"{share:.1%} with {one:g} %" for one, share in matched.items())
        say(f"ranges cover {best:g} % of the values; matching detections: {shown}")

    def _use(self, histograms: dict[str, Histogram], percentile: float) -> None:
        self.percentile = percentile
        self.largest = {name: one.percentile(percentile) for name, one in histograms.items()}

    def most_sensitive(self, parts: Sequence[str]) -> list[str]:
        """The blocks by how much quantizing each alone changes the detections, largest first."""
        say(f"ranking {len(parts)} blocks by sensitivity, each quantized alone")
        matched = {}
        for part in parts:
            others = [other for other in parts if other != part]
            matched[part] = self.judge(others, self.trials, self.expected).matched
        return sorted(parts, key=matched.__getitem__)

    def judge(
        self, kept_float: Collection[str], images: Images, expected: Predictions
    ) -> Agreement:
        """Compare a candidate with the detections of the float network.

        The file runs unchanged, as in TensorRT, and as this toolkit runs it on a CPU; the two clip
        at different values, so the worse result counts.
        """
        self.write(kept_float)
        detectors = (kind(self.path, "cpu") for kind in (UnchangedDetector, OnnxDetector))
        found = [run_detector(one, images, self.preprocessing) for one in detectors]
        agreements = [judge(expected, one, self.limits) for one in found]
        return min(agreements, key=lambda one: (one.passes, one.matched))

    def write(self, kept_float: Collection[str], notes: dict[str, Any] | None = None) -> int:
        """Overwrite the file with a candidate; return its number of nodes."""
        model = quantize(self.model, self.largest, kept_float)
        for entry in model.metadata_props:
            if entry.key == "precision":
                entry.value = json.dumps("int8")
        if notes:
            model.metadata_props.add(key="int8", value=json.dumps(notes))
        self.path.write_bytes(model.SerializeToString())
        return len(model.graph.node)
