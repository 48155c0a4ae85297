"""The trained DEIMv2 Atto in every format and precision: AP and agreement with PyTorch.

    python tests/benchmarks/atto_table.py --state deimv2_atto_coco_state.npz \\
        --foreign deimv2_hgnetv2_atto_coco.onnx --data coco128/data.yaml

The state dict is opened as an official .pth. Every row is the verdict on all images of the val
split; float16 is rounded after every node. A file that fails its verdict is marked with its faults.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rtdetr_cli import RTDETR
from rtdetr_cli.backends.load import load_detector
from rtdetr_cli.core.console import result
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.engine.exporting.images import find_images
from rtdetr_cli.engine.exporting.verdict import compare

EVERY_IMAGE = 10_000
EXPORTS: dict[str, dict[str, Any]] = {
    "ONNX Runtime": {"format": "onnx"},
    "ONNX, float16, every result rounded": {"format": "onnx", "half": True},
    "ONNX Runtime, int8": {"format": "onnx", "int8": True},
    "OpenVINO": {"format": "openvino"},
    "OpenVINO, bf16": {"format": "openvino", "half": True},
    "OpenVINO, int8": {"format": "openvino", "int8": True},
}


def main() -> None:
    """Open, export, compare and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--state", type=Path, help="official names and tensors, .npz", required=True
    )
    parser.add_argument("--foreign", help="the same weights as ONNX, by another project")
    parser.add_argument("--data", required=True)
    parser.add_argument("--only", nargs="*", default=list(EXPORTS), help="names of rows")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        weights = Path(name) / "deimv2_hgnetv2_atto_coco.pth"
        tensors = {key: torch.from_numpy(value) for key, value in np.load(options.state).items()}
        torch.save({"model": tensors}, weights)
        metrics = RTDETR(weights, device="cpu").val(data=options.data, plots=False, project=name)
        result(f"PyTorch: AP {metrics.box.map:.4f}")
        result(
            "| | AP | match | lost, new | box drift px, median / p99 | convolutions in float | MB |"
        )
        result("|---" * 7 + "|")
        if options.foreign:
            result(_row("the published ONNX file", _foreign(weights, options)))
        for row in options.only:
            result(_row(row, _export(weights, options.data, EXPORTS[row])))


def _foreign(weights: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The report of a file that this toolkit did not write."""
    reference, theirs = (load_detector(str(one), "cpu") for one in (weights, options.foreign))
    agreement = compare(reference, theirs, find_images(options.data, EVERY_IMAGE)).to_dict()
    return {"agreement": agreement, "megabytes": Path(options.foreign).stat().st_size / 1e6}


def _export(weights: Path, data: str, keys: dict[str, Any]) -> dict[str, Any]:
    """The report of an export, whether it passes or not."""
    with tempfile.TemporaryDirectory(dir=weights.parent) as name:
        copy = Path(shutil.copy(weights, name))
        with suppress(BackendError):  # the report says why
            RTDETR(copy, device="cpu").export(data=data, verify_images=EVERY_IMAGE, **keys)
        (report,) = Path(name).glob("*.report.json")
        return json.loads(report.read_text())


def _row(name: str, report: dict[str, Any]) -> str:
    found, drift = report["agreement"], report["agreement"]["box_drift_px"]
    blocks = [part for part in report.get("float", {}) if "/" in part]
    cells = [
        f"{name}{'' if found['passes'] else ', fails: ' + '; '.join(found['faults'])}",
        f"{found['ap'][1]:.4f}",
        f"{found['matched']:.1%}",
        f"{found['lost']}, {found['new']}",
        f"{drift['median']:.2g} / {drift['p99']:.2g}",
        ", ".join(blocks),
        f"{report['megabytes']:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
