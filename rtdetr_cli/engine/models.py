"""`rtdetr models`: list the published weights, their AP and which are downloaded."""

from __future__ import annotations

import json
from dataclasses import asdict

from rtdetr_cli.config.settings.modes import ModelsSettings
from rtdetr_cli.core.console import result, result_json, table
from rtdetr_cli.weights.catalog import BACKBONES, CATALOG, Published, PublishedBackbone
from rtdetr_cli.weights.licence import CODE, DATA, Licence


def models(settings: ModelsSettings) -> list[Published]:
    """Print the catalog: detectors by training data and AP, then backbones."""
    entries = sorted(CATALOG.values(), key=lambda entry: (entry.data, entry.ap))
    backbones = list(BACKBONES.values())
    found = [*(entry.licence for entry in entries), *(entry.licence for entry in backbones)]
    licences = list(dict.fromkeys(found))
    if settings.json:
        everything = [*map(_described, entries), *map(_described, backbones)]
        result_json(json.dumps(everything))
        return entries
    columns = ("model", "architecture", "AP", "AP50", "trained on", "licence", "here")
    table("", columns, [_row(entry, licences) for entry in entries])
    title = "\nto train from, with pretrained=backbone"
    heads = ("backbone", "architecture", "MB", "trained on", "licence", "here")
    table(title, heads, [_backbone_row(entry, licences) for entry in backbones])
    numbered = (f"[{number}] {one.describe()}" for number, one in enumerate(licences, start=1))
    result("", "licences of the weights", *numbered, "", "licences of code and data", *CODE, *DATA)
    return entries


def _licence(entry: Published | PublishedBackbone, licences: list[Licence]) -> str:
    """The name of the licence and the number of its line below the tables."""
    return f"{entry.licence.name or 'not stated'} [{licences.index(entry.licence) + 1}]"


def _row(entry: Published, licences: list[Licence]) -> tuple[str, ...]:
    return (
        entry.name,
        entry.architecture,
        f"{entry.ap:.1f}",
        f"{entry.ap50:.1f}",
        entry.data,
        _licence(entry, licences),
        "yes" if entry.kept else "no",
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
    return {"kind": kind, **asdict(entry), **place}
