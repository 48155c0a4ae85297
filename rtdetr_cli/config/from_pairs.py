"""Build the settings of a mode from keys and values, a `cfg` file and a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from rtdetr_cli.config.fields import accepts, allowed_texts, field_types, parse, required_fields
from rtdetr_cli.config.settings.modes import MODES
from rtdetr_cli.config.settings.shared import Settings
from rtdetr_cli.core.bounded_text import show_key
from rtdetr_cli.core.errors import UsageError, nearest

S = TypeVar("S", bound=Settings)


def settings_from_pairs(cls: type[S], pairs: Mapping[str, Any]) -> S:
    """Build the settings of a mode from keys and values; strings are parsed as the field's type.

    Args:
        cls: the settings class of the mode.
        pairs: keys and values of the user. They override those of the YAML file `cfg`, which
            override those of `recipe`.

    Raises:
        UsageError: an unknown or missing key, a wrong type, a value out of range.
    """
    given = dict(pairs)
    file = given.pop("cfg", None)
    if file is not None:
        from rtdetr_cli.config.load import load_yaml  # yaml would slow --help

        given = {**_known(cls, load_yaml(file), f"{file}: "), **given}
    given = {**_recipe(cls, given), **_known(cls, given, "")}
    for key in required_fields(cls):
        if given.get(key) is None:
            raise UsageError(f"{cls.mode} needs {key}=; `rtdetr {cls.mode} --help` lists all keys")
    return cls(**given, given=frozenset(pairs) - {"cfg"})


def _recipe(cls: type[Settings], given: Mapping[str, Any]) -> dict[str, Any]:
    """Read the values of the recipe, unless all keys are given, as for a resumed run."""
    keys, recipe = field_types(cls).keys(), given.get("recipe")
    is_named = isinstance(recipe, str | Path) and recipe != ""
    if "recipe" not in keys or not is_named or not keys - given.keys():
        return {}
    from rtdetr_cli.config.load import load_recipe

    name, values = load_recipe(str(recipe))
    if "recipe" in values:
        raise UsageError(f"{name}: a recipe cannot name another recipe")
    return _known(cls, values, f"{name}: ")


def require_key(cls: type[Settings], key: str, origin: str = "") -> None:
    """Check that a mode has a key; the error names the nearest key or the modes that have it.

    Raises:
        UsageError: `key` is neither a key of `cls` nor `cfg`.
    """
    hints = field_types(cls)
    if key in hints or (key == "cfg" and not origin):
        return
    owners = [mode for mode, other in MODES.items() if key in field_types(other)]
    hint = f"; it is one of {', '.join(owners)}" if owners else nearest(show_key(key), hints)
    raise UsageError(f"{origin}{show_key(key)} is not a key of {cls.mode}{hint}")


def _known(cls: type[Settings], values: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Check that the mode has the keys and parse their values."""
    hints = field_types(cls)
    for key in values:
        require_key(cls, key, origin)
    return {key: _read(value, hints[key]) for key, value in values.items()}


def _read(value: object, hint: object) -> object:
    """Parse strings (`640`), and convert values to strings for string fields (`device: 0`)."""
    if value is False and any("off" in one.values for one in allowed_texts(hint)):
        return "off"  # YAML reads a bare off as false
    if isinstance(value, str):
        return parse(value, hint)
    if value is None or isinstance(value, bool) or not accepts(hint, str):
        return value
    items = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(item, Mapping | list | tuple | set | None) for item in items):
        return value  # not a string; reported by the check of the field
    return ",".join(map(str, items))
