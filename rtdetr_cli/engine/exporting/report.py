"""The report of an export: the JSON beside the file and the lines on the terminal."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetr_cli.backends.openvino.detector import FOLDER
from rtdetr_cli.backends.tensorrt.detector import notes_file
from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.core.console import result, result_json, say, warn
from rtdetr_cli.core.files import atomic_write
from rtdetr_cli.engine.exporting.verdict import Agreement, warn_if_unsure

PRECISION = "fp32"
NOT_COMPARED = "not compared with PyTorch"


@dataclass(frozen=True)
class Report:
    """Content of `<name>.report.json`.

    Attributes:
        facts: properties of the file: format, opset, nodes...
        agreement: the comparison; None with verify=false.
        origin: source of the images compared on.
    """

    facts: dict[str, Any]
    agreement: Agreement | None
    origin: str | None

    @property
    def verdict(self) -> str:
        """The verdict as stored in the file's metadata."""
        if self.agreement is None:
            return NOT_COMPARED
        return "passed" if self.agreement.passes else "failed"

    def to_dict(self, path: Path) -> dict[str, Any]:
        """The report as JSON values, for the file at its final path."""
        compared = self.agreement.to_dict() if self.agreement else None
        facts = {"path": str(path), "megabytes": megabytes(path), **self.facts}
        return {**facts, "verdict": self.verdict, "images": self.origin, "agreement": compared}

    def write(self, path: Path) -> Path:
        """Write the report beside the file at its final path; return its own path."""
        place = report_file(path)
        with atomic_write(place) as temporary:
            temporary.write_text(json.dumps(self.to_dict(path), indent=2) + "\n")
        return place


def megabytes(path: Path) -> float:
    """Size of a file, or of the files in a folder."""
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files) / 1e6


def report_file(path: Path) -> Path:
    """`best.report.json` for `best.onnx`; an engine keeps notes and report in one file."""
    if path.suffix == ".engine":
        return notes_file(path)
    if path.name.endswith(FOLDER):
        return path.with_name(f"{path.name}.report.json")
    return path.with_suffix(".report.json")


def print_report(settings: ExportSettings, path: Path, report: Report) -> None:
    """Write the report of an ONNX file and print its summary on stdout."""
    place = report.write(path)
    values, agreement = report.to_dict(path), report.agreement
    if agreement is None:
        warn("verify=false: the file was not compared with PyTorch; its metadata records this")
    else:
        warn_if_unsure(agreement)
    if settings.json:
        result_json(json.dumps(values))
        return
    result(
        f"{path}: opset {values['opset']}, {values['nodes']} nodes, {values['megabytes']:.1f} MB"
    )
    if agreement:
        result(f"passed: {agreement}")
    if largest := values.get("largest_float16"):
        result(f"largest float16: {largest['value']:.0f} of 65504, in {largest['node']}")
    if settings.int8:
        result(f"int8: {values['convolutions']} convolutions; float: {', '.join(values['float'])}")
    say(f"report in {place}")
