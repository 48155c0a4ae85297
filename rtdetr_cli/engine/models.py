"""`rtdetr models`: list the published weights by family, their AP and cost, and which are here."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict

from rtdetr_cli.config.settings.modes import ModelsSettings
from rtdetr_cli.core.console import result, result_json, table
from rtdetr_cli.weights.catalog import BACKBONES, CATALOG
from rtdetr_cli.weights.licence import CODE, DATA, Licence
from rtdetr_cli.weights.published import Published, PublishedBackbone

START = (
    "fine-tune from rtdetr-r50-o365.pt: 55.2 AP at the speed of rtdetr-l.pt",
    "on a CPU from deimv2-n.pt, deimv2-pico.pt, deimv2-femto.pt or deimv2-atto.pt",
    "`elsewhere`: on Google Drive; a command with this name says what to save where",
)
"""What to start from."""
_COLUMNS = (
    *("model", "AP", "AP50", "params M", "GFLOPs"),
    *("T4 ms", "trained on", "licence", "here"),
)


def models(settings: ModelsSettings) -> list[Published]:
    """Print the catalog: detectors by family, training data and AP, then backbones."""
    entries = sorted(CATALOG.values(), key=lambda entry: (entry.data, entry.ap))
    backbones = list(BACKBONES.values())
    found = [*(entry.licence for entry in entries), *(entry.licence for entry in backbones)]
    licences = list(dict.fromkeys(found))
    if settings.json:
        everything = [*map(_described, entries), *map(_described, backbones)]
        result_json(json.dumps(everything))
        return entries
    columns = (
        "model",
        "AP",
        "AP50",
        "params M",
        "GFLOPs",
        "T4 ms",
        "trained on",
        "licence",
        "here",
    )
    for family in _families():
        rows = [_row(entry, licences) for entry in entries if entry.family == family]
        table(f"\n{family}", columns, rows)
    title = "\nto train from, with pretrained=backbone"
    heads = ("backbone", "architecture", "MB", "trained on", "licence", "here")
    table(title, heads, [_backbone_row(entry, licences) for entry in backbones])
    result("", "what to start from", *START)
    numbered = (f"[{number}] {one.describe()}" for number, one in enumerate(licences, start=1))
    result("", "licences of the weights", *numbered, "", "licences of code and data", *CODE, *DATA)
    return entries


def _families() -> Iterable[str]:
    """In the order of the catalog."""
    return dict.fromkeys(entry.family for entry in CATALOG.values())


def _licence(entry: Published | PublishedBackbone, licences: list[Licence]) -> str:
    """The name of the licence and the number of its line below the tables."""
    return f"{entry.licence.name or 'not stated'} [{licences.index(entry.licence) + 1}]"


def _row(entry: Published, licences: list[Licence]) -> tuple[str, ...]:
    absent = "no" if entry.is_fetched else "elsewhere"
    return (
        entry.name,
        f"{entry.ap:.1f}",
        f"{entry.ap50:.1f}" if entry.ap50 else "",
        f"{entry.parameters_m:g}",
        f"{entry.gflops:g}",
        f"{entry.latency_ms:.2f}" if entry.latency_ms else "",
        entry.data,
        _licence(entry, licences),
        "yes" if entry.kept else absent,
    )


def _backbone_row(entry: PublishedBackbone, licences: list[Licence]) -> tuple[str, ...]:
    return (
        entry.name,
        entry.architecture,
        f"{entry.megabytes:.0f}",
        entry.data,
        _licence(entry, licences),
        "yes" if entry.kept else "no",
    )


def _described(entry: Published | PublishedBackbone) -> dict[str, object]:
    kept = entry.kept
    kind = "detector" if isinstance(entry, Published) else "backbone"
    place = {"url": entry.url, "path": str(kept) if kept else None}
    return {"kind": kind, **asdict(entry), **place, "save_as": str(entry.original)}
