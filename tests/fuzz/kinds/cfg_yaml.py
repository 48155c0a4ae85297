"""Settings files: what `cfg=` and `recipe=` of each mode read."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

from yaml_mutations import write_damaged

from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.modes import MODES

REQUIRED = {"data": "coco8.yaml", "source": "x.png"}


def case(rng: random.Random, folder: Path) -> None:
    """Read a damaged settings file of a mode."""
    cls = MODES[rng.choice(["train", "val", "predict", "export"])]
    names = [field.name for field in dataclasses.fields(cls)]
    given = {key: value for key, value in REQUIRED.items() if key in names}
    values: dict[str, Any] = {**_defaults(cls), **given}
    key = "recipe" if cls.mode == "train" and rng.random() < 0.3 else "cfg"
    if key == "recipe":
        del values["recipe"], values["data"]
    write_damaged(rng, folder / "my.yaml", values)
    settings_from_pairs(cls, {**(given if key == "recipe" else {}), key: str(folder / "my.yaml")})


def _defaults(cls: Any) -> dict[str, Any]:
    missing = dataclasses.MISSING
    return {
        field.name: list(field.default) if isinstance(field.default, tuple) else field.default
        for field in dataclasses.fields(cls)
        if field.default is not missing
    }
