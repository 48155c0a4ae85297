"""Architecture YAMLs: a shipped one with values exchanged, dropped, nested or cut."""

from __future__ import annotations

import random
from pathlib import Path

import yaml

from rtdetr_cli.config.load import load_model_config

ROOT = Path(__file__).resolve().parents[3]
ODD = (
    None,
    "",
    "x",
    -1,
    0,
    1.5,
    1e30,
    10**30,
    [],
    {},
    [[]],
    {"a": 1},
    True,
    float("nan"),
    "\x1b[31m",
)


def case(rng: random.Random, folder: Path) -> None:
    """Mutate one value and open the file as an architecture."""
    text = rng.choice(sorted((ROOT / "models").glob("*.yaml"))).read_text(encoding="utf-8")
    if rng.random() < 0.3:
        content = text[: rng.randrange(len(text))] + rng.choice(["", "[", "&a *a", "\0", "- {"])
    else:
        values = yaml.safe_load(text)
        _mutate(rng, values)
        content = yaml.safe_dump(values)
    path = folder / "model.yaml"
    path.write_text(content, encoding="utf-8")
    load_model_config(path)


def _mutate(rng: random.Random, values: dict) -> None:
    key = rng.choice(list(values))
    inner = values[key]
    if isinstance(inner, dict) and inner and rng.random() < 0.8:
        _mutate(rng, inner)
    elif rng.random() < 0.2:
        del values[key]
    else:
        values[key] = rng.choice(ODD)
