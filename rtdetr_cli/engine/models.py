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
    "fine-tune: rtdetr-r50-o365.pt, 55.2 AP at the speed of rtdetr-l.pt",
    "with a stated licence: dfine-l.pt, 54.0 AP and faster",
    "on a CPU: deimv2-n.pt, deimv2-pico.pt, deimv2-femto.pt or deimv2-atto.pt",
)
"""What to start from."""
_LEGEND = (
    "M, GFLOPs: 10^6 parameters and 10^9 operations; T4 ms: TensorRT, FP16, one image",
    "-o365: trained on Objects365, then COCO; -o365-only: without COCO; others: COCO",
    "Drive: a command with this name says what to save where",
)
_COLUMNS = ("model", "AP", "AP50", "M", "GFLOPs", "T4 ms", "licence", "here")
"""Narrow enough for 80 characters."""
_BACKBONE_COLUMNS = ("backbone", "architecture", "MB", "trained on", "licence", "here")


def models(settings: ModelsSettings) -> list[Published]:
    """Print the catalog: detectors by family, training data and AP; backbones; what to take."""
    entries = sorted(CATALOG.values(), key=lambda entry: (entry.data, entry.ap))
    backbones = list(BACKBONES.values())
    found = [*(entry.licence for entry in entries), *(entry.licence for entry in backbones)]
    licences = list(dict.fromkeys(found))
    if settings.json:
        everything = [*map(_described, entries), *map(_described, backbones)]
        result_json(json.dumps(everything))
        return entries
    for family in _families():
        rows = [_row(entry, licences) for entry in entries if entry.family == family]
        table(f"\n{family}", _COLUMNS, rows)
    title = "\nto train from, with pretrained=backbone"
    table(title, _BACKBONE_COLUMNS, [_backbone_row(entry, licences) for entry in backbones])
    numbered = (f"[{number}] {one.describe()}" for number, one in enumerate(licences, start=1))
    result("", *_LEGEND, "", "licences of the weights", *numbered)
    result("", "licences of code and data", *CODE, *DATA, "", "what to start from", *START)
    return entries


def _families() -> Iterable[str]:
    """In the order of the catalog."""
    return dict.fromkeys(entry.family for entry in CATALOG.values())


def _licence(entry: Published | PublishedBackbone, licences: list[Licence]) -> str:
    """The name of the licence and the number of its line below the tables."""
    return f"{entry.licence.name or 'not stated'} [{licences.index(entry.licence) + 1}]"


def _row(entry: Published, licences: list[Licence]) -> tuple[str, ...]:
    absent = "no" if entry.is_fetched else "Drive"
    return (
        entry.name,
        f"{entry.ap:.1f}",
        f"{entry.ap50:.1f}" if entry.ap50 else "",
        f"{entry.parameters_m:g}",
        f"{entry.gflops:g}",
        f"{entry.latency_ms:.2f}" if entry.latency_ms else "",
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
