"""INT8: calibrates on images of the user, and leaves float what costs too much accuracy.

export.py has written the float file; the graph side is backends/onnx/int8.py and calibration.py.
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
from rtdetr_cli.core.console import say
from rtdetr_cli.engine.exporting.images import Images, evenly, find_calibration
from rtdetr_cli.engine.exporting.verdict import (
    LIMITS,
    Agreement,
    Answers,
    ask,
    judge,
    warn_if_other_classes,
)

NUM_TRIALS = 8
"""Calibration images on which ranges and blocks are compared."""
PERCENTILES = (100.0, 99.999, 99.99, 99.9)
"""Shares of a tensor's values that its range holds; which is best differs from model to model."""


def quantize_file(
    path: Path, reference: Detector, pictures: Images, settings: ExportSettings
) -> tuple[Agreement, dict[str, Any]]:
    """Replace a float file by one with int8 in backbone and encoder.

    Args:
        path: as `write_onnx` wrote it.
        reference: the network in PyTorch.
        pictures: on which it is decided what stays float.
        settings: `data` is calibrated on, `int8_drop` is what AP may lose.

    Returns:
        How it compares, and for the report its nodes, the calibration and what stays float, why.
    """
    calibration = find_calibration(str(settings.data), pictures)
    bench = _Bench(path, reference.preprocessing, settings.int8_drop / 100)
    bench.calibrate(calibration)
    answers = ask(reference, pictures, reference.preprocessing)
    warn_if_other_classes(reference, answers, pictures)
    parts, reasons, order = blocks(bench.model.graph), dict[str, str](), list[str]()
    agreement = bench.judge((), pictures, answers)
    while not agreement.passes and len(reasons) < len(parts):
        order = order or bench.most_sensitive(parts)
        block = order[len(reasons)]
        reasons[block] = "; ".join(agreement.faults)
        say(f"{block} stays float: {reasons[block]}")
        agreement = bench.judge(reasons, pictures, answers)
    notes = {
        "calibration": calibration.origin,
        "calibration_images": len(calibration.sources),
        "percentile": bench.percentile,
        "convolutions": len(plan(bench.model.graph, reasons).convs),
        "float": {"decoder": "always", "attention of the encoder": "always", **reasons},
    }
    return agreement, {"nodes": bench.write(reasons, notes), **notes}


@dataclass
class _Bench:
    """A float file whose int8 forms are tried out in its place."""

    path: Path
    preprocessing: Preprocessing
    drop: float
    percentile: float = 100.0
    largest: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import onnx

        self.model = onnx.load(self.path)
        self.limits = replace(LIMITS["int8"], ap=self.drop)

    def calibrate(self, pictures: Images) -> None:
        """Measure all ranges once, and choose the percentile with the least drift."""
        count = len(pictures.sources)
        say(f"calibrates on {count} images of {pictures.origin}")
        observer = Observer(self.path, plan(self.model.graph).readers)
        seen = ask(observer, pictures, self.preprocessing, "calibrate")
        places = evenly(count, NUM_TRIALS)
        self.trials = Images([pictures.sources[n] for n in places])
        found = [seen.found[n] for n in places]
        self.trial_answers = Answers(found, [seen.sizes_hw[n] for n in places], None)
        matched = {}
        for percentile in PERCENTILES:
            self._use(observer.histograms, percentile)
            matched[percentile] = self.judge((), self.trials, self.trial_answers).matched
        best = max(PERCENTILES, key=matched.__getitem__)
        self._use(observer.histograms, best)
        shown = ", ".join(f"{share:.1%} with {one:g} %" for one, share in matched.items())
        say(f"ranges hold {best:g} % of the values: of the answers match {shown}")

    def _use(self, histograms: dict[str, Histogram], percentile: float) -> None:
        self.percentile = percentile
        self.largest = {name: one.percentile(percentile) for name, one in histograms.items()}

    def most_sensitive(self, parts: Sequence[str]) -> list[str]:
        """The blocks, first the one whose rounding alone moves the answers most."""
        say(f"looks for the most sensitive of {len(parts)} blocks, each by itself in int8")
        matched = {}
        for part in parts:
            others = [other for other in parts if other != part]
            matched[part] = self.judge(others, self.trials, self.trial_answers).matched
        return sorted(parts, key=matched.__getitem__)

    def judge(self, kept_float: Collection[str], pictures: Images, answers: Answers) -> Agreement:
        """Compare one form with what the float network answered.

        Of the file as it is, for TensorRT, and as this toolkit runs it on a CPU, the worse counts:
        they clip at different values.
        """
        self.write(kept_float)
        detectors = (kind(self.path, "cpu") for kind in (UnchangedDetector, OnnxDetector))
        found = [ask(one, pictures, self.preprocessing) for one in detectors]
        agreements = [judge(answers, one, self.limits) for one in found]
        return min(agreements, key=lambda one: (one.passes, one.matched))

    def write(self, kept_float: Collection[str], notes: dict[str, Any] | None = None) -> int:
        """Put one form in the place of the file; how many nodes it has."""
        model = quantize(self.model, self.largest, kept_float)
        for entry in model.metadata_props:
            if entry.key == "precision":
                entry.value = json.dumps("int8")
        if notes:
            model.metadata_props.add(key="int8", value=json.dumps(notes))
        self.path.write_bytes(model.SerializeToString())
        return len(model.graph.node)
