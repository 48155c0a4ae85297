"""report.html of `rtdetr check report=true`: all findings, with images where there are boxes."""

from __future__ import annotations

from rtdetr_cli.config.settings.check import CheckSettings
from rtdetr_cli.config.settings.command import as_command
from rtdetr_cli.core.console import say
from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.files import new_run_dir
from rtdetr_cli.core.findings import Example, Finding, MarkedBox, Severity
from rtdetr_cli.engine.checking.output import Splits, count_rows
from rtdetr_cli.media.draw import Colour
from rtdetr_cli.media.thumbnails import Outline, thumbnail
from rtdetr_cli.report.findings import findings_parts
from rtdetr_cli.report.images import ImageData, jpeg
from rtdetr_cli.report.page import write_page
from rtdetr_cli.report.parts import facts, heading, legend, paragraph, table, tiles
from rtdetr_cli.report.run import PAGE, run_facts

SIDE = 400
"""Length of the longer side of a thumbnail, pixels."""
_MAX_BYTES = 45_000
_SUSPECT: Colour = (213, 94, 0)
_CONTEXT: Colour = (86, 180, 233)


def write_report(settings: CheckSettings, splits: Splits, findings: list[Finding]) -> None:
    """Write the page into a new run folder.

    Raises:
        StorageError: no space left or no permission.
    """
    run_dir = new_run_dir(settings.project, settings.name, settings.exist_ok)
    numbers = [(f"{one.value}s", str(_number(findings, one))) for one in Severity]
    numbers.append(("images", f"{sum(map(len, splits.values())):,}"))
    parts = [
        tiles(numbers),
        facts([("data", settings.data), *run_facts(as_command(settings))]),
        table(("", *splits), count_rows(splits)),
        heading("Findings"),
    ]
    if findings:
        colors = [(_SUSPECT, "what a finding is about"), (_CONTEXT, "other boxes")]
        parts += [legend(colors), *findings_parts(findings, _draw)]
    else:
        parts.append(paragraph("Nothing was found."))
    write_page(run_dir / PAGE, f"Check of {settings.data}", parts)
    say(f"saved to {run_dir}")


def _number(findings: list[Finding], severity: Severity) -> int:
    return sum(one.severity is severity for one in findings)


def _draw(example: Example) -> list[ImageData]:
    """The images of an example; none if one cannot be decoded, which is a finding of its own."""
    suspects = [box.corners for box in example.boxes if box.is_suspect]
    outlines = [_outline(box) for box in example.boxes]
    drawn = []
    try:
        for number, path in enumerate(example.images):
            small = thumbnail(path, SIDE, suspects[0] if suspects and not number else None)
            drawn.append(jpeg(small.drawn([] if number else outlines), _MAX_BYTES))
    except DataError:
        return []
    return drawn


def _outline(box: MarkedBox) -> Outline:
    color = _SUSPECT if box.is_suspect else _CONTEXT
    return Outline(box.corners, box.caption, color, is_thin=not box.is_suspect)
