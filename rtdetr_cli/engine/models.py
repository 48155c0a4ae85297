"""`rtdetr models`: list the published weights, their AP and which are downloaded."""

from __future__ import annotations

import json
from dataclasses import asdict

from rtdetr_cli.config.settings.modes import ModelsSettings
from rtdetr_cli.core.console import result_json, table
from rtdetr_cli.weights.catalog import BACKBONES, CATALOG, Published, PublishedBackbone


def models(settings: ModelsSettings) -> list[Published]:
    """Print the catalog: detectors by training data and AP, then backbones."""
    entries = sorted(CATALOG.values(), key=lambda entry: (entry.data, entry.ap))
    backbones = list(BACKBONES.values())
    if settings.json:
        everything = [*map(_described, entries), *map(_described, backbones)]
        result_json(json.dumps(everything))
        return entries
    columns = ("model", "architecture", "AP", "AP50", "trained on", "licence", "here")
    table("", columns, [_row(entry) for entry in entries])
    title = "\nto train from, with pretrained=backbone"
    heads = ("backbone", "architecture", "MB", "trained on", "licence", "here")
    table(title, heads, [_backbone_row(entry) for entry in backbones])
    return entries


def _row(entry: Published) -> tuple[str, ...]:
    return (
        entry.name,
        entry.architecture,
        f"{entry.ap:.1f}",
        f"{entry.ap50:.1f}",
        entry.data,
        entry.licence,
        "yes" if entry.kept else "no",
    )


def _backbone_row(entry: PublishedBackbone) -> tuple[str, ...]:
    return (
        entry.name,
        entry.architecture,
        f"{entry.megabytes:.0f}",
        entry.data,
        entry.licence,
        "yes" if entry.kept else "no",
    )


def _described(entry: Published | PublishedBackbone) -> dict[str, object]:
    kept = entry.kept
    kind = "detector" if isinstance(entry, Published) else "backbone"
    place = {"url": entry.url, "path": str(kept) if kept else None}
    return {"kind": kind, **asdict(entry), **place}
